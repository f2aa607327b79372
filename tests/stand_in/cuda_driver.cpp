#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "tests/stand_in/state.h"
#include "tests/stand_in/tensor_map.h"

// NOLINTBEGIN: names are those of the library that this stands in for.
namespace attune::testing {
namespace {

Context* make_context(int device) {
  State& s = state();
  Context* context = nullptr;
  if (!s.free_contexts.empty()) {
    context = s.free_contexts.back();
    s.free_contexts.pop_back();
  } else {
    context = &s.contexts.emplace_back();
  }
  *context = {device, s.next_id++};
  s.alive.insert(context);
  return context;
}

bool is_handle(const void* stream) { return reinterpret_cast<std::uintptr_t>(stream) > 2; }

// ---- control --------------------------------------------------------------------------------

void reset(const StandInDevice* devices, int count) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.devices.assign(devices, devices + count);
  s.orders.clear();
  s.counts.clear();
  s.calls.clear();
  s.launches = 0;
  forget_tensor_maps();
  s.launch_texts.clear();
  s.fail_at = -1;
  s.latest = {};
  for (Stream* stream : s.streams) stream->capturing = false;
}

void fail(const char* name, int result, int skip) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.orders[name] = {result, skip};
}

const char* log_of_calls() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.log_text.clear();
  for (const char* call : s.calls) s.log_text += std::string(call) + "\n";
  return s.log_text.c_str();
}

int count_of(const char* name) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.counts[name];
}

std::size_t allocated() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  std::size_t bytes = 0;
  for (const auto& [address, size] : s.memory) bytes += size;
  return bytes;
}

void* create_context(int device) {
  const std::lock_guard lock(state().mutex);
  return make_context(device);
}

void destroy_context(void* context) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.alive.erase(static_cast<Context*>(context));
  for (auto at = s.modules.begin(); at != s.modules.end();) {
    Module* module = *at;
    at = module->context == context ? s.modules.erase(at) : std::next(at);
    if (module->context == context) delete module;
  }
  s.free_contexts.push_back(static_cast<Context*>(context));
}

void set_current(void* context) {
  stack.clear();
  if (context != nullptr) stack.push_back(static_cast<Context*>(context));
}

void* primary_of(int device) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const auto found = s.primary.find(device);
  return found == s.primary.end() ? nullptr : found->second;
}

void* create_stream(void* context) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return *s.streams.insert(new Stream{static_cast<Context*>(context)}).first;
}

}  // namespace
}  // namespace attune::testing

using namespace attune::testing;
using attune::cuda::DevicePointer;
using attune::cuda::LaunchConfig;
using attune::cuda::Result;

extern "C" {

extern const StandInControl attune_stand_in_control;
const StandInControl attune_stand_in_control = {
    reset,
    fail,
    log_of_calls,
    count_of,
    [] {
      const std::lock_guard lock(state().mutex);
      return static_cast<int>(state().calls.size());
    },
    [] { return static_cast<const StandInLaunch*>(&state().latest); },
    [](int n) { return static_cast<const StandInLaunch*>(&state().first[n]); },
    [] { return state().launches; },
    tensor_map,
    tensor_map_count,
    [](bool on) { quiet_mode = on; },
    [] {
      const std::lock_guard lock(state().mutex);
      for (const auto& [address, size] : state().memory)
        munmap(reinterpret_cast<void*>(address), size);
      state().memory.clear();
    },
    allocated,
    create_context,
    destroy_context,
    set_current,
    []() -> void* { return current(); },
    primary_of,
    [] {
      const std::lock_guard lock(state().mutex);
      for (auto& [device, context] : state().primary) context->id = state().next_id++;
    },
    create_stream,
    [](int call, int result) {
      const std::lock_guard lock(state().mutex);
      state().fail_at = call;
      state().fail_with = result;
    },
    [](int n) {
      const std::lock_guard lock(state().mutex);
      const auto& texts = state().launch_texts;
      return n < static_cast<int>(texts.size()) ? texts[static_cast<std::size_t>(n)].c_str() : "";
    },
    [] { return state().latest_image; },
    [] { return static_cast<int>(state().modules.size()); },
    [] { return state().primaries; },
    [](void* stream) {
      const std::lock_guard lock(state().mutex);
      static_cast<Stream*>(stream)->capturing = true;
      static_cast<Stream*>(stream)->valid = true;
    },
    [](void* stream) {
      const std::lock_guard lock(state().mutex);
      static_cast<Stream*>(stream)->capturing = false;
    },
    [](void* stream) { return static_cast<Stream*>(stream)->valid; },
};

Result cuInit(unsigned) {
  // For timing a whole program's calls: nothing is recorded.
  if (std::getenv("ATTUNE_STAND_IN_QUIET") != nullptr) quiet_mode = true;
  ENTER("cuInit");
  return 0;
}
Result cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
Result cuGetErrorName(Result error, const char** text) {
  *text = error == 1     ? "CUDA_ERROR_INVALID_VALUE"
          : error == 2   ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == 200 ? "CUDA_ERROR_INVALID_IMAGE"
          : error == 400 ? "CUDA_ERROR_INVALID_HANDLE"
          : error == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : error == 900 ? "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
                         : "CUDA_ERROR_UNKNOWN";
  return 0;
}
Result cuGetErrorString(Result, const char** text) {
  *text = "the stand-in's own words";
  return 0;
}
Result cuDeviceGetCount(int* count) {
  ENTER("cuDeviceGetCount");
  *count = static_cast<int>(state().devices.size());
  return 0;
}
Result cuDeviceGet(int* device, int index) {
  ENTER("cuDeviceGet");
  if (index < 0 || index >= static_cast<int>(state().devices.size())) return kInvalidDevice;
  *device = index;
  return 0;
}
Result cuDeviceGetName(char* name, int size, int device) {
  std::snprintf(name, static_cast<std::size_t>(size), "Stand-in %d", device);
  return 0;
}
Result cuDeviceGetAttribute(int* value, int attribute, int device) {
  ENTER("cuDeviceGetAttribute");
  const StandInDevice& d = state().devices.at(static_cast<std::size_t>(device));
  switch (attribute) {
    case attune::cuda::kAttributeMajor:
      *value = d.arch / 10;
      return 0;
    case attune::cuda::kAttributeMinor:
      *value = d.arch % 10;
      return 0;
    case attune::cuda::kAttributeSharedPerBlock:
      *value = d.shared_per_block;
      return 0;
    case attune::cuda::kAttributeSms:
      *value = d.sms;
      return 0;
    case attune::cuda::kAttributeL2Bytes:
      *value = d.l2_bytes;
      return 0;
    case attune::cuda::kAttributeHostPageTables:
      *value = d.reads_host_memory ? 1 : 0;
      return 0;
    default:
      return kInvalidValue;
  }
}
Result cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  *bytes = std::size_t{1} << 37;
  return 0;
}
Result cuDevicePrimaryCtxRetain(void** context, int device) {
  ENTER("cuDevicePrimaryCtxRetain");
  State& s = state();
  const std::lock_guard lock(s.mutex);
  Context*& primary = s.primary[device];
  if (primary == nullptr) primary = make_context(device);
  ++s.primaries;
  *context = primary;
  return 0;
}
Result cuDevicePrimaryCtxRelease_v2(int) {
  ENTER("cuDevicePrimaryCtxRelease");
  --state().primaries;
  return 0;
}
Result cuCtxGetCurrent(void** context) {
  ENTER("cuCtxGetCurrent");
  *context = current();
  return 0;
}
Result cuCtxGetId(void* context, unsigned long long* id) {
  ENTER("cuCtxGetId");
  const std::lock_guard lock(state().mutex);
  if (state().alive.count(static_cast<Context*>(context)) == 0) return kInvalidContext;
  *id = static_cast<Context*>(context)->id;
  return 0;
}
Result cuCtxPushCurrent_v2(void* context) {
  ENTER("cuCtxPushCurrent");
  stack.push_back(static_cast<Context*>(context));
  return 0;
}
Result cuCtxPopCurrent_v2(void** context) {
  ENTER("cuCtxPopCurrent");
  if (stack.empty()) return kInvalidContext;
  *context = stack.back();
  stack.pop_back();
  return 0;
}
Result cuCtxGetDevice(int* device) {
  ENTER("cuCtxGetDevice");
  if (current() == nullptr) return kInvalidContext;
  *device = current()->device;
  return 0;
}
Result cuCtxSynchronize() {
  ENTER("cuCtxSynchronize");
  return current() == nullptr ? kInvalidContext : synchronising();
}
Result cuThreadExchangeStreamCaptureMode(int* mode) {
  ENTER("cuThreadExchangeStreamCaptureMode");
  std::swap(*mode, capture_mode);
  return 0;
}
Result cuModuleLoadData(void** module, const void* image) {
  ENTER("cuModuleLoadData");
  if (current() == nullptr) return kInvalidContext;
  if (image == nullptr) return kInvalidImage;
  if (const Result result = synchronising(); result != 0) return result;
  ModuleImage read = read_image(image);
  if (!read.valid) return kInvalidImage;
  auto* made = new Module{current(), {}, false, std::move(read)};
  const std::lock_guard lock(state().mutex);
  state().modules.insert(made);
  state().latest_image = made->image.format;
  *module = made;
  return 0;
}
Result cuModuleGetFunction(void** function, void* module, const char* name) {
  ENTER("cuModuleGetFunction");
  const std::set<std::string> known = {"attune_kernel", "attune_kernel_rows",
                                       "attune_kernel_finish", "attune_kernel_bias"};
  const auto& kernels = static_cast<Module*>(module)->image.parameters;
  if (known.count(name) == 0 && kernels.count(name) == 0) return kNotFound;
  auto& functions = static_cast<Module*>(module)->functions;
  if (std::strcmp(name, "attune_kernel_rows") == 0) static_cast<Module*>(module)->backward = true;
  functions.emplace_back(new Function{static_cast<Module*>(module), name});
  *function = functions.back().get();
  return 0;
}
Result cuModuleUnload(void* module) {
  ENTER("cuModuleUnload");
  const std::lock_guard lock(state().mutex);
  // A module of a context that is gone is gone.
  if (state().modules.erase(static_cast<Module*>(module)) == 0) return kInvalidHandle;
  delete static_cast<Module*>(module);
  return 0;
}
Result cuFuncGetAttribute(int* value, int attribute, void*) {
  ENTER("cuFuncGetAttribute");
  *value = attribute == attune::cuda::kFunctionStaticShared ? 0
           : attribute == attune::cuda::kFunctionMaxThreads ? 1024
                                                            : 128;
  return 0;
}
Result cuFuncGetParamInfo(void* function, std::size_t index, std::size_t* offset,
                          std::size_t* bytes) {
  ENTER("cuFuncGetParamInfo");
  const auto* f = static_cast<Function*>(function);
  const auto found = f->module->image.parameters.find(f->name);
  if (found == f->module->image.parameters.end() || index >= found->second.size()) {
    return kInvalidValue;
  }
  *offset = 0;
  *bytes = found->second[index];
  return 0;
}
Result cuFuncSetAttribute(void* function, int attribute, int value) {
  ENTER("cuFuncSetAttribute");
  auto* f = static_cast<Function*>(function);
  if (attribute == attune::cuda::kFunctionNonPortableCluster) return 0;
  if (attribute != attune::cuda::kFunctionDynamicShared) return kInvalidValue;
  if (value >
      state().devices.at(static_cast<std::size_t>(f->module->context->device)).shared_per_block) {
    return kInvalidValue;
  }
  f->dynamic_shared = value;
  return 0;
}
Result cuLaunchKernelEx(const LaunchConfig* config, void* function, void** params, void** extra) {
  ENTER("cuLaunchKernelEx");
  const auto* f = static_cast<Function*>(function);
  if (extra != nullptr || params == nullptr) return kInvalidValue;
  if (current() == nullptr) return kInvalidContext;
  if (f->module->context != current()) return kInvalidHandle;
  auto* stream = reinterpret_cast<Stream*>(config->stream);
  if (is_handle(stream)) {
    const std::lock_guard lock(state().mutex);
    if (state().streams.count(stream) == 0 || stream->context != current()) return kInvalidHandle;
  }
  if (config->grid_x < 1 || config->grid_x > 2147483647U || config->grid_y < 1 ||
      config->grid_y > 65535 || config->grid_z < 1 || config->grid_z > 65535 ||
      config->block_x > 1024 || static_cast<int>(config->shared_bytes) > f->dynamic_shared) {
    return kInvalidValue;
  }
  if (quiet_mode.load(std::memory_order_relaxed)) return 0;
  StandInLaunch launch{};
  launch.grid_x = config->grid_x;
  launch.grid_y = config->grid_y;
  launch.grid_z = config->grid_z;
  launch.threads = config->block_x;
  launch.shared_bytes = config->shared_bytes;
  launch.cluster = 1;
  for (unsigned n = 0; n < config->attribute_count; ++n) {
    const auto& attribute = config->attributes[n];
    if (attribute.id == attune::cuda::kAttributeCluster) launch.cluster = attribute.value.cluster.x;
    if (attribute.id == attune::cuda::kAttributeProgrammatic) {
      launch.programmatic = attribute.value.programmatic != 0;
    }
  }
  launch.stream = config->stream;
  launch.context = current();
  std::snprintf(launch.function, sizeof(launch.function), "%s", f->name.c_str());
  if (f->name.find("attune_kernel") != 0) {
    // Its arguments are in the text.
  } else if (f->module->backward) {
    std::memcpy(&launch.backward, params[0], sizeof(launch.backward));
    launch.params = launch.backward.f;
  } else {
    std::memcpy(&launch.params, params[0], sizeof(launch.params));
  }
  std::string text = text_of(f->name, *config, f->module->image, params);
  const std::lock_guard lock(state().mutex);
  state().launch_texts.push_back(std::move(text));
  state().latest = launch;
  if (state().launches < kStandInLaunches) state().first[state().launches] = launch;
  ++state().launches;
  return 0;
}
Result cuEventCreate(void** event, unsigned) {
  ENTER("cuEventCreate");
  *event = new char;
  return 0;
}
Result cuEventDestroy_v2(void* event) {
  ENTER("cuEventDestroy");
  delete static_cast<char*>(event);
  return 0;
}
Result cuEventRecord(void*, void*) {
  ENTER("cuEventRecord");
  return 0;
}
Result cuEventSynchronize(void*) {
  ENTER("cuEventSynchronize");
  return 0;
}
Result cuEventElapsedTime(float* milliseconds, void*, void*) {
  ENTER("cuEventElapsedTime");
  *milliseconds = 0.25F;
  return 0;
}
Result cuStreamCreate(void** stream, unsigned) {
  ENTER("cuStreamCreate");
  if (current() == nullptr) return kInvalidContext;
  *stream = create_stream(current());
  return 0;
}
Result cuStreamDestroy_v2(void* stream) {
  ENTER("cuStreamDestroy");
  const std::lock_guard lock(state().mutex);
  state().streams.erase(static_cast<Stream*>(stream));
  delete static_cast<Stream*>(stream);
  return 0;
}
Result cuStreamSynchronize(void*) {
  ENTER("cuStreamSynchronize");
  return 0;
}
Result cuStreamGetCtx(void* stream, void** context) {
  ENTER("cuStreamGetCtx");
  const std::lock_guard lock(state().mutex);
  if (state().streams.count(static_cast<Stream*>(stream)) == 0) return kInvalidHandle;
  *context = static_cast<Stream*>(stream)->context;
  return 0;
}
Result cuStreamBeginCapture_v2(void* stream, int) {
  ENTER("cuStreamBeginCapture");
  const std::lock_guard lock(state().mutex);
  static_cast<Stream*>(stream)->capturing = true;
  static_cast<Stream*>(stream)->valid = true;
  return 0;
}
Result cuStreamEndCapture(void* stream, void** graph) {
  ENTER("cuStreamEndCapture");
  const std::lock_guard lock(state().mutex);
  auto* s = static_cast<Stream*>(stream);
  s->capturing = false;
  *graph = nullptr;
  return s->valid ? 0 : kCaptureInvalidated;
}
Result cuGraphInstantiateWithFlags(void** exec, void*, unsigned long long) {
  ENTER("cuGraphInstantiateWithFlags");
  *exec = nullptr;
  return 0;
}
Result cuGraphLaunch(void*, void*) {
  ENTER("cuGraphLaunch");
  return 0;
}
Result cuGraphExecDestroy(void*) {
  ENTER("cuGraphExecDestroy");
  return 0;
}
Result cuGraphDestroy(void*) {
  ENTER("cuGraphDestroy");
  return 0;
}

}  // extern "C"
// NOLINTEND
