// Runs the package of examples/triton_block.py: plainly, in a CUDA graph, on several threads and streams, and
// beside cuLaunchKernel with a clock. Built and started by tests/gpu_wrap_block.py.
//
// usage: gpu_block_run FOLDER CUBIN THREADS SHARED HIDDEN (BATCH LENGTH INPUT OUTPUT)...
//
// Each INPUT, bfloat16 [BATCH, LENGTH, HIDDEN], is run and written to OUTPUT. CUBIN is the package's kernel rms_norm, which runs on THREADS
// threads a block with SHARED bytes of shared memory.
// What it finds is printed as lines "name value"; the last one is "done 1".
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "block.h"

namespace {

using Bytes = std::vector<char>;
constexpr int kThreads = 4, kRepeats = 25;

[[noreturn]] void fail(const std::string& what) {
  std::printf("failed %s\n", what.c_str());
  std::fflush(stdout);
  std::_Exit(1);
}

// The driver, whose headers are not needed.
struct Driver {
  int (*init)(unsigned);
  int (*device_get)(int*, int);
  int (*retain)(void**, int);
  int (*push)(void*);
  int (*allocate)(unsigned long long*, std::size_t);
  int (*to_device)(unsigned long long, const void*, std::size_t);
  int (*to_host)(void*, unsigned long long, std::size_t);
  int (*fill)(unsigned long long, unsigned char, std::size_t, void*);
  int (*synchronize_all)();
  int (*stream_create)(void**, unsigned);
  int (*synchronize)(void*);
  int (*begin_capture)(void*, int);
  int (*end_capture)(void*, void**);
  int (*instantiate)(void**, void*, unsigned long long);
  int (*graph_launch)(void*, void*);
  int (*module_load)(void**, const void*);
  int (*module_function)(void**, void*, const char*);
  // The stand-in for tests has none.
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                void**, void**);

  Driver() {
    const char* path = std::getenv("ATTUNE_CUDA_DRIVER");
    library_ = dlopen(path != nullptr && *path != '\0' ? path : "libcuda.so.1", RTLD_NOW);
    if (library_ == nullptr) fail(dlerror());
    take(init, "cuInit");
    take(device_get, "cuDeviceGet");
    take(retain, "cuDevicePrimaryCtxRetain");
    take(push, "cuCtxPushCurrent_v2");
    take(allocate, "cuMemAlloc_v2");
    take(to_device, "cuMemcpyHtoD_v2");
    take(to_host, "cuMemcpyDtoH_v2");
    take(fill, "cuMemsetD8Async");
    take(synchronize_all, "cuCtxSynchronize");
    take(stream_create, "cuStreamCreate");
    take(synchronize, "cuStreamSynchronize");
    take(begin_capture, "cuStreamBeginCapture_v2");
    take(end_capture, "cuStreamEndCapture");
    take(instantiate, "cuGraphInstantiateWithFlags");
    take(graph_launch, "cuGraphLaunch");
    take(module_load, "cuModuleLoadData");
    take(module_function, "cuModuleGetFunction");
    take(launch, "cuLaunchKernel", false);
  }

 private:
  template <typename F>
  void take(F& function, const char* name, bool needed = true) {
    function = reinterpret_cast<F>(dlsym(library_, name));
    if (function == nullptr && needed) fail(std::string("the driver has no ") + name);
  }
  void* library_ = nullptr;
};

const Driver& driver() {
  static const Driver d;
  return d;
}

void check(int result, const char* call) {
  if (result != 0) fail(std::string(call) + " returned " + std::to_string(result));
}

Bytes read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void* device_memory(std::size_t bytes) {
  unsigned long long address = 0;
  check(driver().allocate(&address, std::max<std::size_t>(bytes, 256)), "cuMemAlloc");
  return reinterpret_cast<void*>(address);
}

unsigned long long number(void* address) { return reinterpret_cast<unsigned long long>(address); }

// A call's memory, on a stream of its own.
struct Call {
  Call(int64_t b, int64_t s, int64_t hidden, const Bytes& x, bool own_workspace) : bytes(x.size()) {
    const int64_t shape[] = {b, s, hidden};
    if (x.size() != static_cast<std::size_t>(2 * b * s * hidden)) fail("an input has another size");
    arguments.x = attune_wrapped_contiguous(device_memory(bytes), ATTUNE_WRAPPED_BF16, 3, shape);
    arguments.out = attune_wrapped_contiguous(device_memory(bytes), ATTUNE_WRAPPED_BF16, 3, shape);
    check(driver().to_device(number(arguments.x.data), x.data(), bytes), "cuMemcpyHtoD");
    check(driver().synchronize_all(), "cuCtxSynchronize");  // other streams do not wait for it
    check(driver().stream_create(&arguments.stream, 1), "cuStreamCreate");
    if (!own_workspace) return;
    const block_sizes sizes = {b, s};
    if (block_workspace_bytes(&sizes, &arguments.workspace_bytes) != 0) fail(block_last_error());
    arguments.workspace = device_memory(arguments.workspace_bytes);
  }
  void clear() const {
    check(driver().fill(number(arguments.out.data), 0xff, bytes, arguments.stream),
          "cuMemsetD8Async");
  }
  Bytes result() const {
    check(driver().synchronize(arguments.stream), "cuStreamSynchronize");
    Bytes out(bytes);
    check(driver().to_host(out.data(), number(arguments.out.data), bytes), "cuMemcpyDtoH");
    return out;
  }

  block_arguments arguments{};
  std::size_t bytes;
};

void run(Block& block, const Call& call) {
  if (block.run(call.arguments) != ATTUNE_WRAPPED_OK) fail(Block::last_error());
}

struct Case {
  int64_t b, s;
  Bytes x, y;
};

// The same bits from a replayed graph.
bool in_a_graph(Block& block, const Case& one, int64_t hidden, bool own_workspace) {
  const Driver& d = driver();
  const Call call(one.b, one.s, hidden, one.x, own_workspace);
  call.clear();
  void *graph = nullptr, *replay = nullptr;
  check(d.begin_capture(call.arguments.stream, 0), "cuStreamBeginCapture");
  run(block, call);
  check(d.end_capture(call.arguments.stream, &graph), "cuStreamEndCapture");
  check(d.instantiate(&replay, graph, 0), "cuGraphInstantiate");
  bool same = true;
  for (int i = 0; i < 3; ++i) {
    call.clear();
    check(d.graph_launch(replay, call.arguments.stream), "cuGraphLaunch");
    same = call.result() == one.y && same;
  }
  return same;
}

// Threads that share an instance, each with a stream and sizes of its own.
bool on_threads(const char* folder, const std::vector<Case>& cases, int64_t hidden, void* context) {
  Block block(folder);
  if (block.status() != ATTUNE_WRAPPED_OK) fail(Block::last_error());
  std::vector<int> same(kThreads, 1);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      check(driver().push(context), "cuCtxPushCurrent");
      std::vector<Call> calls;
      for (const Case& one : cases) calls.emplace_back(one.b, one.s, hidden, one.x, t % 2 == 0);
      for (int i = 0; i < kRepeats; ++i) {
        for (std::size_t c = 0; c < calls.size(); ++c) {
          const std::size_t at = (c + static_cast<std::size_t>(t)) % calls.size();
          calls[at].clear();
          run(block, calls[at]);
          if (calls[at].result() != cases[at].y) same[static_cast<std::size_t>(t)] = 0;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::find(same.begin(), same.end(), 0) == same.end();
}

// Microseconds that a call of `work` costs its caller: the median of bursts that the queue takes without waiting.
template <typename F>
double host_time(void* stream, int each, const F& work) {
  constexpr int kBursts = 200;
  std::vector<double> times;
  for (int burst = 0; burst < kBursts; ++burst) {
    check(driver().synchronize(stream), "cuStreamSynchronize");
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < each; ++i) work();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    times.push_back(took.count() / each);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Of a run with and without a workspace, and of cuLaunchKernel with the first kernel and its arguments.
void measure(Block& block, char** kernel, int64_t hidden) {
  constexpr int kRuns = 10;
  constexpr unsigned s = 16;
  const Bytes x(static_cast<std::size_t>(2 * s * hidden));
  const Call call(1, s, hidden, x, true), allocating(1, s, hidden, x, false);
  run(block, call);
  run(block, allocating);
  std::printf("run_us %.4f\n", host_time(call.arguments.stream, kRuns, [&] { run(block, call); }));
  std::printf("run_allocating_us %.4f\n",
              host_time(allocating.arguments.stream, kRuns, [&] { run(block, allocating); }));
  if (driver().launch == nullptr) return;
  const Bytes code = read(kernel[0]);
  const auto threads = static_cast<unsigned>(std::atoi(kernel[1]));
  const auto shared = static_cast<unsigned>(std::atoi(kernel[2]));
  void *module = nullptr, *function = nullptr;
  check(driver().module_load(&module, code.data()), "cuModuleLoadData");
  check(driver().module_function(&function, module, "rms_norm"), "cuModuleGetFunction");
  void *weight = device_memory(static_cast<std::size_t>(2 * hidden)), *scratch = nullptr;
  float epsilon = 1e-5F;
  void *in = call.arguments.x.data, *out = call.arguments.out.data;
  void* arguments[] = {&in, &weight, &out, &epsilon, &scratch, &scratch};
  const auto launch = [&] {
    check(driver().launch(function, s, 1, 1, threads, 1, 1, shared, call.arguments.stream,
                          arguments, nullptr),
          "cuLaunchKernel");
  };
  std::printf("launch_us %.4f\n", host_time(call.arguments.stream, 9 * kRuns, launch));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 10 || (argc - 6) % 4 != 0) return 2;
  const Driver& d = driver();
  const char* folder = argv[1];
  const int64_t hidden = std::atoll(argv[5]);
  int device = 0;
  void* context = nullptr;
  check(d.init(0), "cuInit");
  check(d.device_get(&device, 0), "cuDeviceGet");
  check(d.retain(&context, device), "cuDevicePrimaryCtxRetain");
  check(d.push(context), "cuCtxPushCurrent");
  Block block(folder);
  if (block.status() != ATTUNE_WRAPPED_OK) fail(Block::last_error());
  std::vector<Case> cases;
  for (int i = 6; i < argc; i += 4) {
    Case one{std::atoll(argv[i]), std::atoll(argv[i + 1]), read(argv[i + 2]), {}};
    const Call call(one.b, one.s, hidden, one.x, true);
    call.clear();
    run(block, call);
    one.y = call.result();
    std::ofstream(argv[i + 3], std::ios::binary)
        .write(one.y.data(), static_cast<std::streamsize>(one.y.size()));
    cases.push_back(std::move(one));
  }
  bool captured = true;
  for (const Case& one : cases) {
    for (const bool own : {true, false}) captured = in_a_graph(block, one, hidden, own) && captured;
  }
  std::printf("graph_same_bits %d\n", captured ? 1 : 0);
  std::printf("threads_same_bits %d\n", on_threads(folder, cases, hidden, context) ? 1 : 0);
  measure(block, argv + 2, hidden);
  std::printf("done 1\n");
  return 0;
}
