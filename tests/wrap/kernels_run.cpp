// Runs the program that tests/wrap/kernels.json describes against the stand-in for the driver. Built and
// started by tests/wrap_test.py.
//
// usage: kernels_run STAND_IN FOLDER [lying | damaged | threads]
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"
#include "tests/stand_in/control.h"

extern "C" int finish_result;
extern "C" thread_local char finish_said[128];

namespace {

using attune::testing::StandInControl;
using attune::testing::StandInDevice;

const StandInControl* control = nullptr;
std::string folder;
int failures = 0;

void expect(bool ok, const char* what, int line, const std::string& more = "") {
  if (ok) return;
  ++failures;
  std::printf("line %d: %s\n%s\n", line, what, more.c_str());
  std::fflush(stdout);
}
#define EXPECT(condition) expect(condition, #condition, __LINE__, kernels_last_error())
#define EXPECT_SAYS(code, ...) expect_says(code, {__VA_ARGS__}, __LINE__)

void expect_says(int code, const std::vector<std::string>& parts, int line) {
  expect(code != ATTUNE_WRAPPED_OK, "it was refused", line);
  const std::string said = kernels_last_error();
  for (const std::string& part : parts) {
    expect(said.find(part) != std::string::npos, ("it says " + part).c_str(), line, said);
  }
}

void expect_text(const std::string& got, const std::string& want, int line) {
  expect(got == want, "the launch is the expected one", line, "got  " + got + "\nwant " + want);
}

template <typename T>
std::string hex(T value) {
  unsigned char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  std::string text = " ";
  for (const unsigned char byte : bytes) {
    char two[3];
    std::snprintf(two, sizeof(two), "%02x", byte);
    text += two;
  }
  return text;
}

std::string hex_pointer(const void* p) { return hex(reinterpret_cast<unsigned long long>(p)); }
const std::string kNone = hex(0ULL);

struct Memory {
  alignas(256) unsigned char bytes[1 << 20];
};

// Arguments in the host's memory: nothing reads them but copies, fills and the test.
struct Arguments {
  Arguments(int64_t b, int64_t n, int64_t ld = 72) : storage(7) {
    const int64_t vector[] = {n}, x_grid[] = {b, 64}, half[] = {b, 32};
    a.x = attune_wrapped_contiguous(storage[0].bytes, ATTUNE_WRAPPED_F32, 1, vector);
    a.grid = attune_wrapped_contiguous(storage[1].bytes, ATTUNE_WRAPPED_F16, 2, x_grid);
    a.grid.strides[0] = ld;
    a.y = attune_wrapped_contiguous(storage[2].bytes, ATTUNE_WRAPPED_F32, 1, vector);
    a.z = attune_wrapped_contiguous(storage[3].bytes, ATTUNE_WRAPPED_F16, 2, x_grid);
    a.part = attune_wrapped_contiguous(storage[4].bytes, ATTUNE_WRAPPED_F16, 2, half);
    a.factor = 3.5F;
    a.mode = 1;
    a.wide = 0.125;
  }
  std::vector<Memory> storage;
  kernels_arguments a{};
};

void forget(int arch = 90) {
  StandInDevice device;
  device.arch = arch;
  control->reset(&device, 1);
}

struct Instance {
  Instance() { EXPECT(kernels_create(folder.c_str(), 0, &handle) == ATTUNE_WRAPPED_OK); }
  ~Instance() { kernels_destroy(handle); }
  kernels_instance* handle = nullptr;
};

void launches() {
  forget();
  Arguments g(70, 2048);
  Instance i;
  size_t bytes = 0;
  const kernels_sizes sizes = {70, 2048, 72, 1};
  EXPECT(kernels_workspace_bytes(&sizes, &bytes) == ATTUNE_WRAPPED_OK);
  // first (8192 bytes) and third share a part, second (8192) and tile (8960) the other.
  EXPECT(bytes == 8192 + 8960);
  g.a.workspace = g.storage[5].bytes;
  g.a.workspace_bytes = bytes;
  for (unsigned h = 0; h < 70 * 72; ++h)
    reinterpret_cast<uint16_t*>(g.storage[1].bytes)[h] = static_cast<uint16_t>(h);
  for (unsigned h = 0; h < 70 * 64; ++h) {
    reinterpret_cast<uint16_t*>(g.storage[5].bytes + 8192)[h] = static_cast<uint16_t>(7 * h);
  }
  EXPECT(kernels_run(i.handle, &g.a) == ATTUNE_WRAPPED_OK);
  EXPECT(control->launches() == 6);
  EXPECT(control->count("cuMemAllocAsync") == 0);
  const unsigned char* first = g.storage[5].bytes;
  const unsigned char* second = first + 8192;
  expect_text(control->launch_text(0),
              "scale grid 2 1 1 block 128 1 1 shared 0 |" + hex_pointer(g.storage[0].bytes) +
                  hex_pointer(first) + hex(2048) + hex(3.5F) + kNone + kNone,
              __LINE__);
  expect_text(control->launch_text(1),
              "scale grid 8 1 1 block 128 1 1 shared 0 programmatic 1 cooperative 1 cluster 2 1 1 "
              "policy 1 |" +
                  hex_pointer(first) + hex_pointer(second) + hex(2048) + hex(2.0F) + kNone + kNone,
              __LINE__);
  // 8 x 2 blocks have 96 bytes each; the scratch lies where first was.
  expect_text(control->launch_text(2),
              "scale grid 8 2 1 block 128 1 1 shared 0 |" + hex_pointer(second) +
                  hex_pointer(g.storage[2].bytes) + hex(2048) + hex(-1e-6F) + hex_pointer(first) +
                  kNone,
              __LINE__);
  expect(std::string(control->launch_text(3)).find(hex(64) + hex(0.1F)) != std::string::npos,
         "the weights are scaled", __LINE__, control->launch_text(3));
  // Two maps, innermost dimension first, each with its shape and strides.
  const auto map = [](const void* data, unsigned long long pitch) {
    std::string text = hex(6ULL) + hex_pointer(data) + hex(3ULL) + hex(64ULL) + hex(64ULL) +
                       hex(pitch) + hex(70ULL) + hex(32ULL) + hex(0ULL);
    for (int word = 9; word < 16; ++word) text += hex(0ULL);
    std::string joined = " ";
    for (const char c : text) {
      if (c != ' ') joined += c;
    }
    return joined;
  };
  expect_text(control->launch_text(4),
              "tiles grid 3 1 1 block 128 1 1 shared 4104 |" + map(g.storage[1].bytes, 144) +
                  hex(70) + hex(64) + hex(72LL) + hex(1LL) + map(second, 128) + hex(70) + hex(64) +
                  hex(64LL) + hex(1LL) + kNone + kNone,
              __LINE__);
  expect_text(control->launch_text(5),
              "everything grid 1 140 1 block 128 1 1 shared 65536 |" + hex_pointer(first) +
                  hex(static_cast<unsigned char>(1)) + hex(static_cast<signed char>(-3)) +
                  hex(2048LL * 4096) + hex(static_cast<unsigned short>(0x3554)) + hex(0.125) +
                  kNone + kNone,
              __LINE__);
  // Copies: the right half of the tiles, and rows with gaps.
  const auto* part = reinterpret_cast<const uint16_t*>(g.storage[4].bytes);
  const auto* z = reinterpret_cast<const uint16_t*>(g.storage[3].bytes);
  EXPECT(part[0] == 7 * 32 && part[33] == static_cast<uint16_t>(7 * (64 + 33)));
  EXPECT(z[64] == 72 && z[69 * 64 + 63] == 69 * 72 + 63);
  // The fill of first with 1.5 came before all.
  float filled = 0;
  std::memcpy(&filled, first + 8188, 4);
  EXPECT(filled == 1.5F);
  EXPECT(std::string(finish_said) == "0 1 4480 0.25");
  finish_result = 5;
  EXPECT_SAYS(kernels_run(i.handle, &g.a), "kernels: step 9, finish", "returned 5");
  finish_result = 0;
}

void configurations() {
  forget();
  Instance i;
  struct Case {
    int n, offset, blocks;
  };
  for (const auto& [n, offset, blocks] :
       {Case{2048, 0, 2}, Case{2040, 0, 8}, Case{2048, 4, 8}, Case{1008, 0, 4}}) {
    forget();
    Arguments g(1, n);
    g.a.x.data = static_cast<char*>(g.a.x.data) + offset;
    EXPECT(kernels_run(i.handle, &g.a) == ATTUNE_WRAPPED_OK);
    char want[64];
    std::snprintf(want, sizeof(want), "scale grid %d 1 1", blocks);
    expect(std::string(control->launch_text(0)).find(want) == 0, want, __LINE__,
           control->launch_text(0));
  }
  Arguments g(1, 2040);
  g.a.mode = 3;
  EXPECT_SAYS(kernels_run(i.handle, &g.a), "kernels: step 1, scale",
              "no configuration of kernel scale serves", "even needs 1024 <= n and mode != 3",
              "any needs mode != 3");
}

void checks() {
  forget();
  Instance i;
  const auto refused = [&](auto change, std::vector<std::string> parts, int line) {
    Arguments g(4, 100);
    change(g.a);
    parts.emplace_back("kernels: ");
    expect_says(kernels_run(i.handle, &g.a), parts, line);
    expect(control->launches() == 0, "nothing was launched", line);
  };
  refused([](auto& a) { a.x.dtype = ATTUNE_WRAPPED_I32; }, {"input x is i32, expected f32"},
          __LINE__);
  refused([](auto& a) { a.z.rank = 3; }, {"output z has 3 dimensions, expected 2"}, __LINE__);
  refused([](auto& a) { a.y.shape[0] = 99; }, {"output y: shape[0] is 99, expected N = 100"},
          __LINE__);
  refused([](auto& a) { a.grid.shape[1] = 65; }, {"input grid: shape[1] is 65, expected 64 = 64"},
          __LINE__);
  refused([](auto& a) { a.z.strides[0] = 65; }, {"output z: strides[0] is 65, expected 64 = 64"},
          __LINE__);
  refused([](auto& a) { a.grid.strides[0] = 68; }, {"ld = 68", "multiples of 8"}, __LINE__);
  refused([](auto& a) { a.grid.shape[0] = 65537; }, {"B = 65537", "0 to 65536"}, __LINE__);
  refused([](auto& a) { a.x.shape[0] = -1; }, {"N = -1"}, __LINE__);
  refused([](auto& a) { a.mode = 4; }, {"mode = 4", "0 to 3"}, __LINE__);
  refused([](auto& a) { a.z.data = static_cast<char*>(a.z.data) + 8; },
          {"output z lies at", "16 bytes"}, __LINE__);
  refused([](auto& a) { a.part.data = nullptr; }, {"output part has no memory"}, __LINE__);
  refused(
      [](auto& a) {
        a.workspace = a.x.data;
        a.workspace_bytes = 16;
      },
      {"the workspace has 16 bytes"}, __LINE__);
  refused(
      [](auto& a) {
        a.workspace = static_cast<char*>(a.x.data) + 8;
        a.workspace_bytes = 1 << 20;
      },
      {"the workspace lies at", "256 bytes"}, __LINE__);
  EXPECT_SAYS(kernels_run(nullptr, nullptr), "NULL");
  EXPECT_SAYS(kernels_create(folder.c_str(), 0, nullptr), "out is NULL");
  kernels_destroy(nullptr);
  const kernels_sizes sizes = {4, 1 << 21, 72, 1};
  size_t bytes = 0;
  EXPECT_SAYS(kernels_workspace_bytes(&sizes, &bytes), "N = 2097152");
  // Nothing to do: no launch with an empty grid reaches the driver.
  Arguments empty(0, 0);
  EXPECT(kernels_run(i.handle, &empty.a) == ATTUNE_WRAPPED_OK);
  EXPECT(control->launches() == 1);  // the weights are there in any case
}

void grids() {
  forget();
  Instance i;
  Arguments g(1, 64);
  g.a.grid.shape[0] = g.a.z.shape[0] = g.a.part.shape[0] = 40000;
  std::vector<unsigned char> big(40000 * 144 + 256);
  void* aligned =
      reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(big.data()) + 255) / 256 * 256);
  g.a.grid.data = g.a.z.data = g.a.part.data = aligned;
  EXPECT(kernels_run(i.handle, &g.a) == ATTUNE_WRAPPED_OK);
  // 80,000 in y are 2 x 40,000.
  const std::string text = control->launch_text(5);
  expect(text.find("everything grid 1 40000 2 ") == 0, "y goes to z", __LINE__, text);
}

void devices() {
  const StandInDevice two[] = {{}, {}};
  for (const auto& [arch, says] :
       {std::pair<int, const char*>{
            86, "kernel cluster, configuration 0: the GPU is sm_86, and there is code for sm_90a"},
        {75, "code for this GPU"},
        {100, "code for this GPU"}}) {
    forget(arch);
    Instance i;
    Arguments g(1, 2048);
    EXPECT_SAYS(kernels_run(i.handle, &g.a), says);
    // What is compiled for other GPUs is no reason not to load the rest.
    EXPECT(kernels_prepare(i.handle, nullptr) == ATTUNE_WRAPPED_OK);
  }
  // Two GPUs, two instances: each loads once a context.
  control->reset(two, 2);
  {
    Instance i, j;
    void* contexts[] = {control->create_context(0), control->create_context(1)};
    Arguments g(1, 64);
    for (kernels_instance* instance : {i.handle, j.handle}) {
      for (void* context : contexts) {
        g.a.stream = control->create_stream(context);
        for (int again = 0; again < 2; ++again) {
          EXPECT(kernels_run(instance, &g.a) == ATTUNE_WRAPPED_OK);
        }
      }
    }
    EXPECT(control->current() == nullptr);
    // Five images of six are for this GPU and taken; constants are uploaded with each context.
    EXPECT(control->modules() == 4 * 4);
    EXPECT(control->count("cuModuleLoadData") == 4 * 4);
    EXPECT(control->count("cuMemAlloc") == 4);
    // A context that is gone takes what was in it; one at its address is another.
    control->destroy_context(contexts[1]);
  }
  EXPECT(control->modules() == 0);
  control->forget_memory();
}

void shared_memory() {
  StandInDevice small;
  small.shared_per_block = 49152;
  control->reset(&small, 1);
  control->set_current(control->create_context(0));
  Instance i;
  Arguments g(1, 64);
  EXPECT_SAYS(kernels_run(i.handle, &g.a), "step 8, everything",
              "needs 65536 bytes of shared memory", "offers 49152");
  control->set_current(nullptr);
}

void threads() {
  forget();
  void* context = control->create_context(0);
  Instance i;
  std::vector<std::thread> all;
  std::atomic<int> refused{0};
  for (int t = 0; t < 4; ++t) {
    all.emplace_back([&] {
      Arguments g(3, 2048);
      g.a.stream = control->create_stream(context);
      for (int n = 0; n < 50; ++n) refused += kernels_run(i.handle, &g.a) != ATTUNE_WRAPPED_OK;
    });
  }
  for (std::thread& thread : all) thread.join();
  EXPECT(refused == 0);
  EXPECT(control->launches() == 4 * 50 * 6);
  EXPECT(control->count("cuModuleLoadData") == 5);
  EXPECT(control->count("cuMemAlloc") == 1);
}

void capture() {
  for (const bool prepared : {true, false}) {
    forget();
    void* context = control->create_context(0);
    control->set_current(context);
    void* stream = control->create_stream(context);
    Instance i;
    if (prepared) EXPECT(kernels_prepare(i.handle, stream) == ATTUNE_WRAPPED_OK);
    const int loads = control->count("cuModuleLoadData");
    control->begin_capture(stream);
    Arguments g(3, 2048);
    g.a.stream = stream;
    EXPECT(kernels_run(i.handle, &g.a) == ATTUNE_WRAPPED_OK);
    EXPECT(control->capture_is_valid(stream));
    if (prepared) EXPECT(control->count("cuModuleLoadData") == loads);
    control->end_capture(stream);
    control->set_current(nullptr);
  }
}

std::string name_of_call(int call) {
  std::string log = control->log();
  for (; call > 0; --call) log.erase(0, log.find('\n') + 1);
  return log.substr(0, log.find('\n'));
}

// Each call of the driver fails once: it is told, nothing is left behind, and the next run is as good as ever.
void injected_failures() {
  int told = 0, last = 400;
  for (int call = 0; call < last; ++call) {
    forget();
    control->forget_memory();
    control->renew_primaries();
    control->fail_at(call, 719);
    {
      Arguments g(3, 2048);
      Instance i;
      const int code = kernels_run(i.handle, &g.a);
      if (code != ATTUNE_WRAPPED_OK) {
        ++told;
        const std::string said = kernels_last_error();
        expect(said.find("kernels: ") == 0 && said.find("CUDA_ERROR") != std::string::npos &&
                   said.find("719") != std::string::npos,
               "the failure is told", __LINE__, said);
        EXPECT(kernels_run(i.handle, &g.a) == ATTUNE_WRAPPED_OK);
      } else if (control->calls() > call) {
        // Only giving back may fail without a word, and what no call depends on.
        const std::string name = name_of_call(call);
        expect(name.find("cuCtxPopCurrent") == 0 || name.find("cuThreadExchange") == 0 ||
                   name.find("cuStreamDestroy") == 0,
               "nobody is told", __LINE__, name);
      }
      last = control->calls() <= call ? call : last;  // it was not reached any more
    }
    const std::string name = control->calls() > call ? name_of_call(call) : "";
    // What could not be given back stays: all else is gone.
    const bool kept = name.find("Unload") != std::string::npos ||
                      name.find("Free") != std::string::npos ||
                      name.find("Release") != std::string::npos || name.find("cuCtxGetId") == 0 ||
                      name.find("cuCtxPush") == 0 || name.find("cuDeviceGet") == 0;
    if (kept && call > 100) continue;
    expect(control->modules() == 0 || kept, "no module is left", __LINE__, name);
    expect(control->allocated() == 0 || kept, "no memory is left", __LINE__, name);
  }
  std::printf("%d failures of the driver were told\n", told);
  EXPECT(told > 80);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  folder = argv[2];
  setenv("ATTUNE_CUDA_DRIVER", argv[1], 1);
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::printf("%s\n", dlerror());
    return 2;
  }
  control = static_cast<const StandInControl*>(dlsym(library, attune::testing::kStandInSymbol));
  const std::string way = argc > 3 ? argv[3] : "";
  if (way == "lying") {
    forget();
    Instance i;
    Arguments g(1, 64);
    EXPECT_SAYS(kernels_run(i.handle, &g.a), "step 1, scale", "kernel scale",
                "scale of kernels.scale.sm_90a", "parameter 2 has 4 bytes in its code, expected 8");
    EXPECT(control->modules() == 0);
  } else if (way == "damaged") {
    forget();
    Instance i;
    Arguments g(1, 64);
    EXPECT_SAYS(kernels_run(i.handle, &g.a), "kernels.scale.sm_90a",
                "is not the file that the program was wrapped with");
  } else if (way == "threads") {
    threads();
  } else {
    launches();
    configurations();
    checks();
    grids();
    devices();
    shared_memory();
    threads();
    capture();
    injected_failures();
  }
  std::printf("%d failures\n", failures);
  std::fflush(stdout);
  return failures == 0 ? 0 : 1;
}
