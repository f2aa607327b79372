// check(): every way in which tensors can fail to be what their Problem says.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "problem/shapes.h"
#include "problem/strides.h"

namespace attune {
namespace {

// A Problem with every tensor that it names, contiguous and zero.
class Call {
 public:
  explicit Call(const std::string& text) {
    Expected<Problem> parsed = parse(text);
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    problem = *parsed;
    for (const TensorSpec& spec : tensors_of(problem)) {
      if (spec.role == Role::unused) continue;
      TensorView& view = args.*spec.view;
      view.dtype = spec.dtype;
      view.rank = spec.rank;
      view.shape = spec.shape;
      view.strides = spec.strides == nullptr
                         ? contiguous_strides(view.shape, view.rank)
                         : resolve_strides(view.shape, *spec.strides, view.rank);
      view.data = memory(static_cast<std::size_t>(view.elements()) * size_of(view.dtype));
    }
  }

  // Zeroed, and aligned for every dtype.
  void* memory(std::size_t bytes) { return buffers_.emplace_back(bytes + 1).data(); }

  static void fill(const TensorView& view, const std::vector<std::int32_t>& values) {
    ASSERT_EQ(static_cast<std::size_t>(view.elements()), values.size());
    std::copy(values.begin(), values.end(), static_cast<std::int32_t*>(view.data));
  }

  Problem problem;
  Arguments args;

 private:
  std::deque<std::vector<std::byte>> buffers_;
};

void expect_ok(const Call& call) {
  const Status status = check(call.problem, call.args);
  EXPECT_TRUE(status.ok()) << print(call.problem) << ": " << status.message();
}

void expect_refused(const Call& call, const std::string& says) {
  const Status status = check(call.problem, call.args);
  EXPECT_EQ(status.code(), Code::invalid_argument) << says;
  EXPECT_NE(status.message().find(says), std::string::npos)
      << "says:  " << status.message() << "\nwants: " << says;
}

using Change = std::function<void(Call&)>;

void expect_refused(const std::string& text, const std::string& says, const Change& change) {
  Call call(text);
  expect_ok(call);
  change(call);
  expect_refused(call, says);
}

const std::string kForward = "forward b=2 hq=4 hkv=2 sq=3 sk=5 d=8 dv=6";
const std::string kBackward = "backward b=2 hq=4 hkv=2 sq=3 sk=5 d=8 dv=6";

TEST(Check, AcceptsEveryKindOfProblem) {
  for (const char* words : {"",
                            "lse",
                            "lse=padded32",
                            "bias=bf16:1h1k",
                            "bias=bool",
                            "alibi=head",
                            "alibi=batch-head",
                            "sink",
                            "dropout=0.5",
                            "dropout=0.5 dropout_stream=fa2",
                            "key_lengths",
                            "packed=q",
                            "packed=k",
                            "packed=qk key_lengths",
                            "page_size=2 pages=3",
                            "page_size=2 pages=3 packed=q key_lengths",
                            "dtype=bf16",
                            "dtype=f16 deterministic",
                            "packed=q lse",
                            "packed=q lse=padded32",
                            "b=0",
                            "align=1 device=cuda"}) {
    std::string start =
        words == std::string("b=0") ? "forward hq=4 hkv=2 sq=3 sk=5 d=8 dv=6 " : kForward + " ";
    expect_ok(Call(start + words));
    start.replace(0, 7, "backward");
    expect_ok(Call(start + words));
  }
  for (const char* words :
       {"", " descale", " descale bias=bf16 alibi=head sink softcap=3 dropout=0.5",
        " descale packed=qk lse", " descale page_size=2 pages=3", " b=0"}) {
    if (words == std::string(" b=0")) {
      expect_ok(Call("forward dtype=f8e4m3 descale b=0 hq=4 hkv=2 sq=3 sk=5 d=8"));
    } else {
      expect_ok(Call(kForward + " dtype=f8e4m3" + words));
    }
  }
  expect_ok(Call(kBackward + " bias=f16:11qk bias_grad sink sink_grad alibi=head alibi_grad "
                             "lse=padded32 lse_grad"));
}

TEST(Check, RefusesWrongScales) {
  const std::string text = kForward + " dtype=f8e4m3 descale";
  expect_refused(text, "q_scale is missing: the problem expects f32[B, Hq] = [2, 4]",
                 [](Call& c) { c.args.q_scale = {}; });
  expect_refused(text, "k_scale is missing: the problem expects f32[B, Hkv] = [2, 2]",
                 [](Call& c) { c.args.k_scale = {}; });
  expect_refused(text, "v_scale has shape [2, 4], but the problem expects [B, Hkv] = [2, 2]",
                 [](Call& c) { c.args.v_scale = c.args.q_scale; });
  expect_refused(text, "q_scale has dtype bf16, but the problem expects f32",
                 [](Call& c) { c.args.q_scale.dtype = DType::bf16; });
  expect_refused(text, "o has dtype f8e4m3, but the problem expects bf16",
                 [](Call& c) { c.args.o.dtype = DType::f8e4m3; });
  expect_refused(kForward + " dtype=f8e4m3",
                 "q_scale was given, but the problem has no scales (descale)", [](Call& c) {
                   c.args.q_scale = TensorView::contiguous(c.memory(32), DType::f32, {2, 4});
                 });
}

TEST(Check, AcceptsZeroSizesWithoutData) {
  for (const char* text :
       {"forward b=0 sq=2 d=4", "forward sq=0 sk=2 d=4", "forward sq=2 sk=0 d=4",
        "forward sq=2 d=0 scale=1", "backward sq=2 sk=0 d=4", "forward sq=2 d=4 dv=0"}) {
    Call call(text);
    for (const TensorSpec& spec : tensors_of(call.problem)) {
      TensorView& view = call.args.*spec.view;
      if (view.elements() == 0) view.data = nullptr;
    }
    expect_ok(call);
  }
}

TEST(Check, HoldsTheAlignmentOfAProblemForTheGpu) {
  const auto misplace = [](Call& c) {
    auto* q = static_cast<char*>(c.args.q.data);
    if (reinterpret_cast<std::uintptr_t>(q) % 8 == 0) c.args.q.data = q + 4;
  };
  expect_refused(kForward + " align=8 device=cuda",
                 "which is not a multiple of the 8 bytes that the problem promises; move it, or "
                 "say align=4",
                 misplace);
  Call on_cpu(kForward + " align=8 device=cpu");
  misplace(on_cpu);
  expect_ok(on_cpu);
}

TEST(Check, ReadsNothingBehindTheGpusPointers) {
  Call call(kForward + " packed=qk key_lengths align=1 device=cuda");
  for (TensorView* view :
       {&call.args.cu_seqlens_q, &call.args.cu_seqlens_k, &call.args.key_lengths}) {
    view->data = reinterpret_cast<void*>(std::uintptr_t{64});
  }
  expect_ok(call);
}

TEST(Check, TakesADropoutStateForTheGpuAlone) {
  std::array<std::int64_t, 2> state{};
  const TensorView view = TensorView::contiguous(state.data(), DType::i64, {2});
  Call call(kForward + " dropout=0.5 align=1 device=cuda");
  call.args.dropout_state = view;
  expect_ok(call);
  expect_refused(kForward + " dropout=0.5 device=cpu", "only device=cuda reads one",
                 [&](Call& c) { c.args.dropout_state = view; });
  expect_refused(kForward + " align=1 device=cuda", "the problem has no dropout",
                 [&](Call& c) { c.args.dropout_state = view; });
  expect_refused(kForward + " dropout=0.5 align=1 device=cuda", "it takes i64[2]", [&](Call& c) {
    c.args.dropout_state = view;
    c.args.dropout_state.shape[0] = 3;
  });
}

TEST(Check, NamesWhatIsMissing) {
  expect_refused(kForward, "q is missing: the problem expects f32[B, Sq, Hq, D] = [2, 3, 4, 8]",
                 [](Call& c) { c.args.q = {}; });
  expect_refused(kForward, "o is missing", [](Call& c) { c.args.o = {}; });
  expect_refused(kForward + " lse", "lse is missing", [](Call& c) { c.args.lse = {}; });
  expect_refused(kForward + " packed=q", "cu_seqlens_q is missing: the problem expects i32[B + 1]",
                 [](Call& c) { c.args.cu_seqlens_q = {}; });
  expect_refused(kBackward, "lse is missing", [](Call& c) { c.args.lse = {}; });
  expect_refused(kBackward, "grad_k is missing", [](Call& c) { c.args.grad_k = {}; });
  expect_refused(kBackward + " bias=f32 bias_grad", "grad_bias is missing",
                 [](Call& c) { c.args.grad_bias = {}; });
}

TEST(Check, NamesWhatIsNotUsed) {
  struct Case {
    TensorView Arguments::*view;
    const char* says;
  };
  const std::vector<Case> cases = {
      {&Arguments::bias, "bias was given, but the problem has no bias"},
      {&Arguments::alibi_slopes, "alibi_slopes was given, but the problem has no ALiBi"},
      {&Arguments::sink, "sink was given, but the problem has no sink"},
      {&Arguments::key_lengths, "key_lengths was given, but the problem has no key lengths"},
      {&Arguments::cu_seqlens_q, "cu_seqlens_q was given, but the problem's queries are not"},
      {&Arguments::cu_seqlens_k, "cu_seqlens_k was given, but the problem's keys are not packed"},
      {&Arguments::page_table, "page_table was given, but the problem's keys are not paged"},
      {&Arguments::lse, "lse was given, but the problem has no LSE"},
      {&Arguments::grad_o, "grad_o was given, but the problem is a forward one"},
      {&Arguments::grad_lse, "grad_lse was given, but the problem has no gradient of the LSE"},
      {&Arguments::grad_q, "grad_q was given, but the problem is a forward one"},
      {&Arguments::grad_bias, "grad_bias was given, but the problem asks for no bias gradient"},
  };
  for (const Case& c : cases) {
    expect_refused(kForward, c.says, [&](Call& call) { call.args.*c.view = call.args.q; });
  }
}

TEST(Check, NamesShapesThatDisagree) {
  expect_refused(kForward, "q has 3 dimensions, but the problem expects 4: [B, Sq, Hq, D]",
                 [](Call& c) { c.args.q.rank = 3; });
  expect_refused(kForward, "q has -7 dimensions", [](Call& c) { c.args.q.rank = -7; });
  expect_refused(kForward, "q has 1000000 dimensions", [](Call& c) { c.args.q.rank = 1000000; });
  expect_refused(kForward,
                 "k has shape [2, 4, 2, 8], but the problem expects [B, Sk, Hkv, D] = [2, 5, 2, 8]",
                 [](Call& c) { c.args.k.shape[1] = 4; });
  expect_refused(kForward, "v has shape [2, 5, 2, 8]", [](Call& c) { c.args.v.shape[3] = 8; });
  expect_refused(kForward, "o has shape [-2, 3, 4, 6]", [](Call& c) { c.args.o.shape[0] = -2; });
  expect_refused(kForward + " lse=padded32", "[B, Hq, Sq rounded up to 32] = [2, 4, 32]",
                 [](Call& c) { c.args.lse.shape[2] = 3; });
  expect_refused(kForward + " bias=f32:b1qk", "bias has shape [2, 4, 3, 5]",
                 [](Call& c) { c.args.bias.shape[1] = 4; });
  expect_refused(kForward + " page_size=2 pages=3", "page_table has shape [2, 2]",
                 [](Call& c) { c.args.page_table.shape[1] = 2; });
  expect_refused(kForward + " packed=k total_k=9", "[1, total_k, Hkv, D] = [1, 9, 2, 8]",
                 [](Call& c) { c.args.k.shape[1] = 10; });
}

TEST(Check, NamesDtypesThatDisagree) {
  expect_refused(kForward, "q has dtype f16, but the problem expects f32",
                 [](Call& c) { c.args.q.dtype = DType::f16; });
  expect_refused(kForward + " dtype=bf16 lse", "lse has dtype bf16, but the problem expects f32",
                 [](Call& c) { c.args.lse.dtype = DType::bf16; });
  expect_refused(kForward + " key_lengths", "key_lengths has dtype i64",
                 [](Call& c) { c.args.key_lengths.dtype = DType::i64; });
  expect_refused(kForward, "q has dtype unknown dtype",
                 [](Call& c) { c.args.q.dtype = static_cast<DType>(99); });
  expect_refused(kBackward + " bias=bf16 bias_grad",
                 "grad_bias has dtype f64, but the problem expects f32, f16 or bf16",
                 [](Call& c) { c.args.grad_bias.dtype = DType::f64; });
  Call call(kBackward + " bias=bf16 bias_grad");  // any of the three, whatever the bias's own
  call.args.grad_bias.data = call.memory(4096);
  call.args.grad_bias.dtype = DType::f32;
  expect_ok(call);
}

TEST(Check, HoldsTensorsToTheStridesOfTheProblem) {
  expect_refused(kForward,
                 "k has strides (80, 8, 40, 1), but the problem says (80, 16, 8, 1), contiguous, "
                 "as it has no k_strides",
                 [](Call& c) {
                   c.args.k.strides = {80, 8, 40, 1};
                 });
  expect_refused(kForward + " q_strides=96,8,24,1", "but the problem says (96, 8, 24, 1)",
                 [](Call& c) {
                   c.args.q.strides = {96, 32, 8, 1};
                 });
  Call call("forward b=1 hq=1 sq=3 sk=5 d=8");  // strides of extents of 1 are never used
  call.args.q.strides = {-99, 8, 12345, 1};
  expect_ok(call);
}

TEST(Check, RefusesOutputsThatOverlapThemselves) {
  expect_refused(kBackward, "grad_q has strides (96, 32, 8, -1): an output can't have a negative",
                 [](Call& c) { c.args.grad_q.strides[3] = -1; });
  expect_refused(kBackward, "grad_v has strides (60, 12, 5, 1) over shape [2, 5, 2, 6], so that",
                 [](Call& c) { c.args.grad_v.strides[2] = 5; });
  expect_refused(kBackward, "elements overlap each other",
                 [](Call& c) { c.args.grad_k.strides[0] = 0; });
  expect_refused(kForward + " lse", "lse has strides (0, 0, 0)",
                 [](Call& c) { c.args.lse.strides = {}; });
  expect_refused(kBackward, "reaches past 2^63 bytes", [](Call& c) {
    c.args.grad_q.strides[0] = std::numeric_limits<std::int64_t>::max();
  });
  Call call(kBackward + " lse_grad");  // inputs may repeat
  call.args.grad_o.strides = {};
  call.args.grad_lse.strides = {};
  expect_ok(call);
}

TEST(Check, RefusesOutputsThatOverlapOtherTensors) {
  expect_refused("forward sq=4 d=8", "the output o overlaps the input q in memory",
                 [](Call& c) { c.args.o.data = c.args.q.data; });
  expect_refused("forward sq=4 d=8", "the output o overlaps the input v in memory",
                 [](Call& c) { c.args.o.data = static_cast<float*>(c.args.v.data) + 1; });
  expect_refused("backward sq=4 d=8", "the output grad_q overlaps the output grad_v in memory",
                 [](Call& c) { c.args.grad_v.data = c.args.grad_q.data; });
  expect_refused("backward sq=4 d=8", "the output grad_k overlaps the input grad_o in memory",
                 [](Call& c) { c.args.grad_k.data = c.args.grad_o.data; });
  // Gradients as slices of one [B, S, 3, H, D] buffer share a range, but no element.
  Call call("backward b=2 hq=3 sq=4 d=8");
  float* buffer = static_cast<float*>(call.memory(2UL * 4 * 3 * 3 * 8 * sizeof(float)));
  for (TensorView* view : {&call.args.grad_q, &call.args.grad_k, &call.args.grad_v}) {
    view->data = buffer;
    view->strides = {4 * 72, 72, 8, 1};
    buffer += 24;
  }
  expect_ok(call);
}

TEST(Check, RefusesPointers) {
  expect_refused(kForward, "q has no data: its pointer is null, but its shape [2, 3, 4, 8] has 192",
                 [](Call& c) { c.args.q.data = nullptr; });
  expect_refused(kForward, "which is not a multiple of the 4 bytes of f32",
                 [](Call& c) { c.args.k.data = static_cast<char*>(c.args.k.data) + 2; });
}

TEST(Check, ReadsCuSeqlens) {
  const std::string packed = "forward b=3 hq=1 sq=4 sk=5 d=8 packed=qk total_q=10 total_k=10";
  const auto with_q = [](std::vector<std::int32_t> values) {
    return [values](Call& c) { Call::fill(c.args.cu_seqlens_q, values); };
  };
  const auto with_k = [](std::vector<std::int32_t> values) {
    return [values](Call& c) { Call::fill(c.args.cu_seqlens_k, values); };
  };
  expect_refused(packed, "cu_seqlens_q[0] = 1, but the first sequence starts at 0",
                 with_q({1, 2, 3, 4}));
  expect_refused(packed, "cu_seqlens_q[2] = 2 is below cu_seqlens_q[1] = 3", with_q({0, 3, 2, 4}));
  expect_refused(packed, "cu_seqlens_q[3] = 11 is past the end: total_q = 10",
                 with_q({0, 4, 8, 11}));
  expect_refused(packed,
                 "cu_seqlens_q gives sequence 1 a length of 5, but the problem's longest "
                 "is sq = 4",
                 with_q({0, 4, 9, 10}));
  expect_refused(packed, "cu_seqlens_k[1] = -1 is below cu_seqlens_k[0] = 0",
                 with_k({0, -1, 2, 3}));
  expect_refused(packed, "cu_seqlens_k[1] = 2147483647 is past the end",
                 with_k({0, 2147483647, 2147483647, 2147483647}));
  expect_refused(packed, "is below", with_k({0, 5, -2147483647 - 1, 3}));
  Call call(packed);
  Call::fill(call.args.cu_seqlens_q, {0, 4, 4, 7});  // an empty one, and three tokens of no one
  Call::fill(call.args.cu_seqlens_k, {0, 0, 5, 10});
  expect_ok(call);
}

TEST(Check, ReadsKeyLengths) {
  const std::string dense = "forward b=2 hq=1 sq=4 sk=5 d=8 key_lengths";
  expect_refused(dense, "key_lengths[1] = -1 is negative", [](Call& c) {
    Call::fill(c.args.key_lengths, {5, -1});
  });
  expect_refused(dense, "key_lengths[0] = 6 is more than the sk = 5 keys there are", [](Call& c) {
    Call::fill(c.args.key_lengths, {6, 0});
  });
  expect_refused("forward b=2 hq=1 sq=4 sk=5 d=8 key_lengths packed=k",
                 "key_lengths[1] = 4 is more than the 3 keys that cu_seqlens_k gives sequence 1",
                 [](Call& c) {
                   Call::fill(c.args.cu_seqlens_k, {0, 5, 8});
                   Call::fill(c.args.key_lengths, {5, 4});
                 });
}

TEST(Check, HoldsABiasToItsPromise) {
  const std::string text =
      "forward dtype=bf16 b=1 hq=2 sq=3 sk=16 d=8 bias=bf16 bias_aligned device=cuda";
  Call call(text);
  call.args.bias.strides = {96, 48, 16, 1};
  auto* const start = static_cast<std::byte*>(call.args.bias.data);
  const auto past = reinterpret_cast<std::uintptr_t>(start) % 16;
  call.args.bias.data = start + (16 - past) % 16;
  expect_ok(call);
  const auto refused = [&](const Extents& strides, std::size_t bytes) {
    Call wrong = call;
    wrong.args.bias.strides = strides;
    wrong.args.bias.data = static_cast<std::byte*>(call.args.bias.data) + bytes;
    expect_refused(wrong,
                   "the problem promises (bias_aligned) rows that start at multiples of 16 bytes");
  };
  refused({96, 48, 16, 1}, 2);
  refused({96, 52, 16, 1}, 0);
  refused({96, 48, 16, 2}, 0);
  refused({96, 48, 0, 1}, 0);
  refused({96, -48, 16, 1}, 0);
}

TEST(Check, ReadsPageTables) {
  const std::string paged = "forward b=2 hq=1 sq=1 sk=5 d=8 page_size=2 pages=4";
  expect_refused(paged, "page_table[1, 2] = 4 is out of range: there are 4 pages", [](Call& c) {
    Call::fill(c.args.page_table, {0, 1, 2, 3, 2, 4});
  });
  expect_refused(paged, "page_table[0, 0] = -1 is out of range", [](Call& c) {
    Call::fill(c.args.page_table, {-1, 1, 2, 3, 2, 1});
  });
  // Entries past a sequence's own length may hold anything.
  Call call(paged + " key_lengths");
  Call::fill(call.args.key_lengths, {3, 0});
  Call::fill(call.args.page_table, {0, 1, 99, -1, 77, 77});
  expect_ok(call);
  Call::fill(call.args.key_lengths, {3, 1});
  expect_refused(call, "page_table[1, 0] = -1");
  // Any strides.
  Call wide(paged);
  wide.args.page_table.data = wide.memory(64);
  wide.args.page_table.strides = {1, 2};
  Call::fill(wide.args.page_table, {0, 1, 2, 3, 0, 5});
  expect_refused(wide, "page_table[1, 2] = 5");
}

TEST(Check, RefusesAnInvalidProblemFirst) {
  Call call(kForward);
  call.problem.b = -1;
  expect_refused(call, "b = -1 is too small");
}

TEST(Tensor, PrintsItself) {
  float x = 0;
  TensorView view = TensorView::contiguous(&x, DType::f32, {2, 3});
  EXPECT_EQ(to_string(view), "f32[2, 3]");
  view.strides = {1, 2};
  EXPECT_EQ(to_string(view), "f32[2, 3] strides (1, 2)");
  view.rank = 77;  // hostile values print, too
  EXPECT_NE(to_string(view), "");
  EXPECT_EQ(TensorView{}.elements(), 0);
  EXPECT_TRUE(TensorView{}.empty());
  const std::int64_t large = std::int64_t{1} << 40;
  EXPECT_EQ(TensorView::contiguous(&x, DType::u8, {large, large}).elements(),
            std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(TensorView::contiguous(&x, DType::u8, {2, 0, 3}).strides[0], 3);
}

TEST(RowAlignment, IsThatOfEveryRow) {
  const auto of = [](DType dtype, Extents shape, Extents strides) {
    TensorView view;
    view.dtype = dtype;
    view.rank = 4;
    view.shape = shape;
    view.strides = strides;
    return row_alignment(view);
  };
  EXPECT_EQ(of(DType::bf16, {2, 3, 4, 8}, {96, 32, 8, 1}), 16);
  EXPECT_EQ(of(DType::bf16, {2, 3, 4, 8}, {96, 32, 12, 1}), 8);
  EXPECT_EQ(of(DType::f32, {2, 3, 4, 8}, {96, 33, 8, 1}), 4);
  EXPECT_EQ(of(DType::f32, {2, 3, 4, 8}, {0, 0, -8, 1}), 16) << "rows may repeat and walk back";
  EXPECT_EQ(of(DType::bf16, {2, 3, 4, 8}, {0, 0, 0, 0}), 2) << "neighbours are not neighbours";
  EXPECT_EQ(of(DType::bf16, {2, 3, 4, 8}, {768, 256, 64, 2}), 2);
  EXPECT_EQ(of(DType::bf16, {1, 1, 1, 1}, {3, 5, 7, 9}), 16) << "extents of 1 do not count";
  EXPECT_EQ(of(DType::bf16, {2, 0, 4, 8}, {1, 1, 1, 3}), 16) << "nor do tensors without elements";
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(of(DType::bf16, {2, 3, 4, 8}, {kMost, 32, 8, 1}), 2);
  TensorView wrong;
  wrong.data = &wrong;
  wrong.rank = 9;
  EXPECT_EQ(row_alignment(wrong), 16) << "check() refuses it";
}

}  // namespace
}  // namespace attune
