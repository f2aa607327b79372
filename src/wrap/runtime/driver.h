// The CUDA driver, opened when it is first needed: nothing of CUDA is linked.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>

#include "launch/cuda_types.h"
#include "wrap/runtime/error.h"

namespace attune::wrapped {

using cuda::Context;
using cuda::Device;
using cuda::DevicePointer;
using cuda::Function;
using cuda::LaunchAttribute;
using cuda::LaunchConfig;
using cuda::Module;
using cuda::Result;
using cuda::Stream;

struct Driver {
  Result (*init)(unsigned);
  Result (*error_name)(Result, const char**);
  Result (*error_string)(Result, const char**);
  Result (*device_get)(Device*, int);
  Result (*device_attribute)(int*, int, Device);
  Result (*primary_retain)(Context*, Device);
  Result (*primary_release)(Device);
  Result (*context_current)(Context*);
  Result (*context_push)(Context);
  Result (*context_pop)(Context*);
  Result (*context_device)(Device*);
  Result (*exchange_capture_mode)(int*);
  Result (*module_load)(Module*, const void*);
  Result (*module_unload)(Module);
  Result (*module_function)(Function*, Module, const char*);
  Result (*function_attribute)(int*, int, Function);
  Result (*set_function_attribute)(Function, int, int);
  Result (*launch)(const LaunchConfig*, Function, void**, void**);
  Result (*allocate)(DevicePointer*, std::size_t);
  Result (*release)(DevicePointer);
  Result (*allocate_async)(DevicePointer*, std::size_t, Stream);
  Result (*release_async)(DevicePointer, Stream);
  Result (*to_device_async)(DevicePointer, const void*, std::size_t, Stream);
  Result (*copy_async)(DevicePointer, DevicePointer, std::size_t, Stream);
  Result (*copy_2d_async)(const cuda::Copy2D*, Stream);
  Result (*set_bytes)(DevicePointer, unsigned char, std::size_t, Stream);
  Result (*set_halves)(DevicePointer, unsigned short, std::size_t, Stream);
  Result (*set_words)(DevicePointer, unsigned, std::size_t, Stream);
  Result (*stream_context)(Stream, Context*);
  Result (*stream_create)(Stream*, unsigned);
  Result (*stream_destroy)(Stream);
  Result (*stream_synchronize)(Stream);
  // Of later drivers; null before.
  Result (*context_id)(Context, unsigned long long*);                           // CUDA 12.0
  Result (*parameter_info)(Function, std::size_t, std::size_t*, std::size_t*);  // CUDA 12.4
  // Of GPUs that have tensor maps.
  Result (*encode_tiled)(void*, int, unsigned, void*, const unsigned long long*,
                         const unsigned long long*, const unsigned*, const unsigned*, int, int, int,
                         int);
  const char* why_not;  // null: it is there
};

inline Driver open_driver() {
  Driver d{};
  // For tests, and for drivers that lie elsewhere.
  const char* chosen = std::getenv("ATTUNE_CUDA_DRIVER");
  const bool has_choice = chosen != nullptr && *chosen != 0;
  void* library = dlopen(has_choice ? chosen : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    d.why_not = "there is no CUDA driver here, libcuda.so.1; it comes with the NVIDIA driver";
    return d;
  }
  bool complete = true;
  const auto take = [&](auto& pointer, const char* symbol, bool needed = true) {
    void* found = dlsym(library, symbol);
    static_assert(sizeof(pointer) == sizeof(found));
    std::memcpy(&pointer, &found, sizeof(found));
    complete = complete && (found != nullptr || !needed);
  };
  take(d.init, "cuInit");
  take(d.error_name, "cuGetErrorName");
  take(d.error_string, "cuGetErrorString");
  take(d.device_get, "cuDeviceGet");
  take(d.device_attribute, "cuDeviceGetAttribute");
  take(d.primary_retain, "cuDevicePrimaryCtxRetain");
  take(d.primary_release, "cuDevicePrimaryCtxRelease_v2");
  take(d.context_current, "cuCtxGetCurrent");
  take(d.context_push, "cuCtxPushCurrent_v2");
  take(d.context_pop, "cuCtxPopCurrent_v2");
  take(d.context_device, "cuCtxGetDevice");
  take(d.exchange_capture_mode, "cuThreadExchangeStreamCaptureMode");
  take(d.module_load, "cuModuleLoadData");
  take(d.module_unload, "cuModuleUnload");
  take(d.module_function, "cuModuleGetFunction");
  take(d.function_attribute, "cuFuncGetAttribute");
  take(d.set_function_attribute, "cuFuncSetAttribute");
  take(d.launch, "cuLaunchKernelEx");
  take(d.allocate, "cuMemAlloc_v2");
  take(d.release, "cuMemFree_v2");
  take(d.allocate_async, "cuMemAllocAsync");
  take(d.release_async, "cuMemFreeAsync");
  take(d.to_device_async, "cuMemcpyHtoDAsync_v2");
  take(d.copy_async, "cuMemcpyDtoDAsync_v2");
  take(d.copy_2d_async, "cuMemcpy2DAsync_v2");
  take(d.set_bytes, "cuMemsetD8Async");
  take(d.set_halves, "cuMemsetD16Async");
  take(d.set_words, "cuMemsetD32Async");
  take(d.stream_context, "cuStreamGetCtx");
  take(d.stream_create, "cuStreamCreate");
  take(d.stream_destroy, "cuStreamDestroy_v2");
  take(d.stream_synchronize, "cuStreamSynchronize");
  take(d.context_id, "cuCtxGetId", false);
  take(d.parameter_info, "cuFuncGetParamInfo", false);
  take(d.encode_tiled, "cuTensorMapEncodeTiled", false);
  if (!complete) {
    d.why_not = "the CUDA driver is too old; CUDA 12 or later is needed";
  } else if (d.init(0) != cuda::kSuccess) {
    d.why_not = "the CUDA driver finds no GPU to drive";
  }
  return d;
}

// Opened on the first call, and never closed: drivers do not like it.
inline const Driver& driver() {
  static const Driver opened = open_driver();
  return opened;
}

// "<doing>: CUDA_ERROR_... (the driver's own words, error 1)"
inline int driver_failed(Result result, const char* doing) {
  const char* name = nullptr;
  const char* text = nullptr;
  if (driver().error_name(result, &name) != cuda::kSuccess || name == nullptr) name = "an error";
  if (driver().error_string(result, &text) != cuda::kSuccess || text == nullptr) text = "no words";
  const int code = result == cuda::kErrorOutOfMemory ? ATTUNE_WRAPPED_OUT_OF_MEMORY
                                                     : ATTUNE_WRAPPED_DEVICE_ERROR;
  return fail(code, "%s: %s (%s, error %d)", doing, name, text, result);
}

}  // namespace attune::wrapped
