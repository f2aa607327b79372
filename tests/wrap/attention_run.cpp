// What a wrapped program asks of the driver for attention, beside what the library asks for the same: the same
// kernel, grid and parameters. Built and started by tests/wrap_test.py.
//
// usage: attention_run STAND_IN FOLDER
#include <dlfcn.h>

#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "attention.h"
#include "tests/stand_in/control.h"

namespace {

using attune::Arguments;
using attune::DType;
using attune::TensorView;
using attune::testing::StandInControl;
using attune::testing::StandInDevice;
using attune::testing::StandInLaunch;

const StandInControl* control = nullptr;
int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::printf("%s\n", what.c_str());
  std::fflush(stdout);
}

struct Sizes {
  int64_t b, s, t, ld, pages, columns, total, longest;
  int misaligned;
};

TensorView view_of(const attune_wrapped_tensor& t) {
  TensorView view;
  view.data = t.data;
  view.dtype = static_cast<DType>(t.dtype);
  view.rank = t.rank;
  for (int axis = 0; axis < t.rank; ++axis) {
    view.shape[static_cast<std::size_t>(axis)] = t.shape[axis];
    view.strides[static_cast<std::size_t>(axis)] = t.strides[axis];
  }
  return view;
}

// Addresses that nothing reads.
void* fake(int n, int misaligned = 0) {
  return reinterpret_cast<void*>(0x100000000000ULL + 0x10000000000ULL * static_cast<unsigned>(n) +
                                 static_cast<unsigned>(misaligned));
}

attention_arguments arguments_of(const Sizes& z) {
  attention_arguments a{};
  int n = 0;
  const auto make = [&](int32_t dtype, const std::vector<int64_t>& shape, int misaligned = 0) {
    return attune_wrapped_contiguous(fake(n++, misaligned), dtype,
                                     static_cast<int32_t>(shape.size()), shape.data());
  };
  a.q = make(ATTUNE_WRAPPED_BF16, {z.b, z.s, 8, 64});
  a.k = make(ATTUNE_WRAPPED_BF16, {z.b, z.t, 2, 64});
  a.v = make(ATTUNE_WRAPPED_BF16, {z.b, z.t, 2, 64});
  a.loose = make(ATTUNE_WRAPPED_F16, {z.b, z.s, 1, 80}, z.misaligned);
  a.loose.strides[0] = z.s * z.ld;
  a.loose.strides[1] = z.ld;
  a.pool_k = make(ATTUNE_WRAPPED_F32, {z.pages, 16, 4, 40});
  a.pool_v = make(ATTUNE_WRAPPED_F32, {z.pages, 16, 4, 40});
  a.table = make(ATTUNE_WRAPPED_I32, {z.b, z.columns});
  a.lengths = make(ATTUNE_WRAPPED_I32, {z.b});
  a.sink = make(ATTUNE_WRAPPED_F32, {4});
  a.query = make(ATTUNE_WRAPPED_F32, {z.b, 1, 4, 40});
  a.packed = make(ATTUNE_WRAPPED_F16, {1, z.total, 6, 300});
  a.packed.strides[0] = 1;
  a.starts = make(ATTUNE_WRAPPED_I32, {4});
  a.slopes = make(ATTUNE_WRAPPED_F32, {2});
  a.bias = make(ATTUNE_WRAPPED_F32, {1, 8, z.s, z.t});
  a.o = make(ATTUNE_WRAPPED_BF16, {z.b, z.s, 8, 64});
  a.lse = make(ATTUNE_WRAPPED_F32, {z.b, 8, z.s});
  a.loose_o = make(ATTUNE_WRAPPED_F16, {z.b, z.s, 1, 80});
  a.decoded = make(ATTUNE_WRAPPED_F32, {z.b, 1, 4, 40});
  a.packed_o = make(ATTUNE_WRAPPED_F16, {1, z.total, 2, 300});
  a.biased = make(ATTUNE_WRAPPED_BF16, {z.b, z.s, 8, 64});
  a.dropped = make(ATTUNE_WRAPPED_BF16, {z.b, z.s, 8, 64});
  a.longest = z.longest;
  a.workspace = fake(40);
  a.workspace_bytes = std::size_t{1} << 50;
  return a;
}

// The first portable row that serves: packages have no other family's, and the library may prefer one.
std::string portable_row(const attune::Problem& problem) {
  const auto explained = attune::explain_candidates(problem);
  expect(explained.ok(), print(problem) + ": " + explained.status().message());
  if (!explained.ok()) return "";
  for (const auto& candidate : explained->candidates) {
    if (candidate.reasons.empty() && candidate.kernel.find(".portable.") != std::string::npos) {
      return candidate.kernel;
    }
  }
  return "";
}

// The library's launch of one step.
StandInLaunch by_library(const std::string& words, const Arguments& arguments, void* workspace) {
  StandInLaunch none{};
  const auto problem = attune::parse(words);
  expect(problem.ok(), words + ": " + problem.status().message());
  if (!problem.ok()) return none;
  attune::PlanOptions options;
  options.kernel = portable_row(*problem);
  auto plan = attune::make_plan(*problem, options);
  expect(plan.ok(), words + ": " + plan.status().message());
  if (!plan.ok()) return none;
  const int before = control->launches();
  const auto status =
      plan->run(arguments, {static_cast<std::byte*>(workspace), plan->workspace_bytes()});
  expect(status.ok(), words + ": " + status.message());
  return control->launches() > before ? *control->latest() : none;
}

void compare(const std::string& what, const StandInLaunch& got, const StandInLaunch& want) {
  expect(got.grid_x == want.grid_x && got.grid_y == want.grid_y && got.grid_z == want.grid_z,
         what + ": grid");
  expect(got.threads == want.threads && got.shared_bytes == want.shared_bytes,
         what + ": the same row");
  const auto* a = reinterpret_cast<const unsigned char*>(&got.params);
  const auto* b = reinterpret_cast<const unsigned char*>(&want.params);
  for (std::size_t i = 0; i < sizeof(got.params); ++i) {
    if (a[i] == b[i]) continue;
    expect(false, what + ": byte " + std::to_string(i) + " of the parameters differs");
    return;
  }
}

void run(attention_instance* instance, const Sizes& z, int arch) {
  StandInDevice device;
  device.arch = arch;
  device.shared_per_block = arch == 75 ? 65536 : 232448;
  device.l2_bytes = 7 << 20;
  device.reads_host_memory = true;
  control->reset(&device, 1);
  attention_arguments a = arguments_of(z);
  const int code = attention_run(instance, &a);
  expect(code == ATTUNE_WRAPPED_OK, attention_last_error());
  const int count = control->launches();
  std::vector<StandInLaunch> got;
  for (int i = 0; i < count; ++i) got.push_back(*control->launch(i));

  const auto number = [](int64_t n) { return std::to_string(n); };
  const auto view = view_of;
  std::vector<StandInLaunch> want;
  const auto take = [&](const std::string& words, const Arguments& arguments) {
    const int before = control->launches();
    const StandInLaunch launch = by_library(words, arguments, a.workspace);
    if (control->launches() > before) want.push_back(launch);
  };
  const std::string dense =
      " b=" + number(z.b) + " sq=" + number(z.s) + " sk=" + number(z.t) + " device=cuda";
  Arguments x;
  x.q = view(a.q), x.k = view(a.k), x.v = view(a.v), x.o = view(a.o), x.lse = view(a.lse);
  take("forward dtype=bf16 hq=8 hkv=2 d=64 lse mask=causal-bottom-right window=255,0 softcap=30" +
           dense,
       x);
  x = {};
  x.q = x.k = x.v = view(a.loose);
  x.o = view(a.loose_o);
  const std::string strides = number(z.s * z.ld) + "," + number(z.ld) + ",80,1";
  take("forward dtype=f16 hq=1 hkv=1 d=80 scale=0.125 b=" + number(z.b) + " sq=" + number(z.s) +
           " sk=" + number(z.s) + " q_strides=" + strides + " k_strides=" + strides +
           " v_strides=" + strides + " align=" + (z.misaligned != 0 ? "2" : "16") + " device=cuda",
       x);
  x = {};
  x.q = view(a.query), x.k = view(a.pool_k), x.v = view(a.pool_v), x.o = view(a.decoded);
  x.page_table = view(a.table), x.key_lengths = view(a.lengths), x.sink = view(a.sink);
  take("forward dtype=f32 hq=4 hkv=4 d=40 sq=1 page_size=16 sink key_lengths b=" + number(z.b) +
           " sk=" + number(z.columns * 16) + " pages=" + number(z.pages) + " device=cuda",
       x);
  x = {};
  const auto third = [&](int part) {
    TensorView v = view(a.packed);
    v.shape[2] = 2;
    v.data = static_cast<char*>(v.data) + 1200 * part;
    return v;
  };
  x.q = third(0), x.k = third(1), x.v = third(2), x.o = view(a.packed_o);
  x.cu_seqlens_q = x.cu_seqlens_k = view(a.starts);
  x.alibi_slopes = view(a.slopes);
  take("forward dtype=f16 hq=2 hkv=2 d=300 mask=causal-top-left alibi=head packed=qk b=3 sq=" +
           number(z.longest) + " sk=" + number(z.longest) + " total_q=" + number(z.total) +
           " total_k=" + number(z.total) +
           " q_strides=1,1800,300,1 k_strides=1,1800,300,1 v_strides=1,1800,300,1 align=8 "
           "device=cuda",
       x);
  x = {};
  x.q = view(a.q), x.k = view(a.k), x.v = view(a.v), x.o = view(a.biased), x.bias = view(a.bias);
  x.dropout_seed = 42, x.dropout_offset = 7;
  take("forward dtype=bf16 hq=8 hkv=2 d=64 dropout=0.25 bias=f32:1hqk" + dense, x);
  x = {};
  x.q = view(a.q), x.k = view(a.k), x.v = view(a.v), x.o = view(a.dropped);
  x.dropout_seed = 43, x.dropout_offset = 96;
  take("forward dtype=bf16 hq=8 hkv=2 d=64 dropout=0.5 dropout_stream=fa2" + dense, x);

  expect(got.size() == want.size(),
         "as many launches: " + number(static_cast<int64_t>(got.size())) + " and " +
             number(static_cast<int64_t>(want.size())));
  for (std::size_t i = 0; i < got.size() && i < want.size(); ++i) {
    compare("sm_" + std::to_string(arch) + ", b = " + number(z.b) + ", s = " + number(z.s) +
                ", step " + std::to_string(i),
            got[i], want[i]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  setenv("ATTUNE_CUDA_DRIVER", argv[1], 1);
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::printf("%s\n", dlerror());
    return 2;
  }
  control = static_cast<const StandInControl*>(dlsym(library, attune::testing::kStandInSymbol));
  for (const int arch : {90, 80}) {
    attention_instance* instance = nullptr;
    expect(attention_create(argv[2], 0, &instance) == ATTUNE_WRAPPED_OK, "create");
    for (const Sizes& z :
         {Sizes{2, 100, 130, 96, 9, 5, 77, 40, 0}, Sizes{1, 1, 1, 80, 1, 1, 1, 1, 0},
          Sizes{3, 1024, 4096, 88, 4096, 512, 60000, 4096, 0},
          Sizes{2, 64, 64, 81, 7, 3, 50, 50, 0}, Sizes{2, 64, 64, 96, 7, 3, 50, 50, 2},
          Sizes{256, 33, 5, 1000, 7, 3, 0, 1, 0}, Sizes{0, 33, 20, 1000, 7, 3, 9, 1, 0}}) {
      run(instance, z, arch);
    }
    attention_destroy(instance);
    control->renew_primaries();
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
