// The CUDA driver, opened at run time: one binary runs with and without a GPU.
#pragma once

#include <attune/status.hpp>
#include <string>
#include <string_view>

#include "launch/cuda_types.h"

namespace attune::cuda {

// Every entry point that Attune calls: X(member, symbol, parameters). Symbols carry the version
// whose parameters these are, so that any later driver has them too.
#define ATTUNE_CUDA_ENTRY_POINTS(X)                                                            \
  X(init, "cuInit", (unsigned))                                                                \
  X(driver_version, "cuDriverGetVersion", (int*))                                              \
  X(error_name, "cuGetErrorName", (Result, const char**))                                      \
  X(error_string, "cuGetErrorString", (Result, const char**))                                  \
  X(device_count, "cuDeviceGetCount", (int*))                                                  \
  X(device_get, "cuDeviceGet", (Device*, int))                                                 \
  X(device_name, "cuDeviceGetName", (char*, int, Device))                                      \
  X(device_attribute, "cuDeviceGetAttribute", (int*, int, Device))                             \
  X(device_memory, "cuDeviceTotalMem_v2", (std::size_t*, Device))                              \
  X(primary_retain, "cuDevicePrimaryCtxRetain", (Context*, Device))                            \
  X(context_current, "cuCtxGetCurrent", (Context*))                                            \
  X(context_push, "cuCtxPushCurrent_v2", (Context))                                            \
  X(context_pop, "cuCtxPopCurrent_v2", (Context*))                                             \
  X(context_device, "cuCtxGetDevice", (Device*))                                               \
  X(context_synchronize, "cuCtxSynchronize", ())                                               \
  X(exchange_capture_mode, "cuThreadExchangeStreamCaptureMode", (int*))                        \
  X(module_load, "cuModuleLoadData", (Module*, const void*))                                   \
  X(module_function, "cuModuleGetFunction", (Function*, Module, const char*))                  \
  X(module_unload, "cuModuleUnload", (Module))                                                 \
  X(function_attribute, "cuFuncGetAttribute", (int*, int, Function))                           \
  X(set_function_attribute, "cuFuncSetAttribute", (Function, int, int))                        \
  X(launch, "cuLaunchKernelEx", (const LaunchConfig*, Function, void**, void**))               \
  X(pointer_attribute, "cuPointerGetAttribute", (void*, int, DevicePointer))                   \
  X(allocate, "cuMemAlloc_v2", (DevicePointer*, std::size_t))                                  \
  X(release, "cuMemFree_v2", (DevicePointer))                                                  \
  X(allocate_async, "cuMemAllocAsync", (DevicePointer*, std::size_t, Stream))                  \
  X(release_async, "cuMemFreeAsync", (DevicePointer, Stream))                                  \
  X(to_device, "cuMemcpyHtoD_v2", (DevicePointer, const void*, std::size_t))                   \
  X(to_host, "cuMemcpyDtoH_v2", (void*, DevicePointer, std::size_t))                           \
  X(set_bytes, "cuMemsetD8_v2", (DevicePointer, unsigned char, std::size_t))                   \
  X(event_create, "cuEventCreate", (Event*, unsigned))                                         \
  X(event_destroy, "cuEventDestroy_v2", (Event))                                               \
  X(event_record, "cuEventRecord", (Event, Stream))                                            \
  X(event_synchronize, "cuEventSynchronize", (Event))                                          \
  X(event_elapsed, "cuEventElapsedTime", (float*, Event, Event))                               \
  X(stream_create, "cuStreamCreate", (Stream*, unsigned))                                      \
  X(stream_destroy, "cuStreamDestroy_v2", (Stream))                                            \
  X(stream_synchronize, "cuStreamSynchronize", (Stream))                                       \
  X(stream_context, "cuStreamGetCtx", (Stream, Context*))                                      \
  X(capture_begin, "cuStreamBeginCapture_v2", (Stream, int))                                   \
  X(capture_end, "cuStreamEndCapture", (Stream, Graph*))                                       \
  X(graph_instantiate, "cuGraphInstantiateWithFlags", (GraphExec*, Graph, unsigned long long)) \
  X(graph_launch, "cuGraphLaunch", (GraphExec, Stream))                                        \
  X(graph_exec_destroy, "cuGraphExecDestroy", (GraphExec))                                     \
  X(graph_destroy, "cuGraphDestroy", (Graph))

struct Driver {
// NOLINTNEXTLINE(bugprone-macro-parentheses): a declaration, not an expression
#define ATTUNE_CUDA_MEMBER(member, symbol, parameters) Result(*member) parameters = nullptr;
  ATTUNE_CUDA_ENTRY_POINTS(ATTUNE_CUDA_MEMBER)
#undef ATTUNE_CUDA_MEMBER
  // Since CUDA 12.0; null before. Tells a context from an earlier one at the same address.
  Result (*context_id)(Context, unsigned long long*) = nullptr;

  // Likewise; what the copy engine of sm_90 and later knows of a tensor.
  Result (*tensor_map)(void* map, int type, unsigned rank, void* data, const std::uint64_t* sizes,
                       const std::uint64_t* strides, const std::uint32_t* box,
                       const std::uint32_t* steps, int interleave, int swizzle, int promotion,
                       int fill) = nullptr;

  std::string path;  // the file that opened
  int version = 0;   // 13000 is CUDA 13.0
};

// Opened and initialised on the first call; every later one answers the same. Refused when there is
// no driver, or no device that it could drive, with what to install.
[[nodiscard]] const Expected<const Driver*>& driver();

// Nothing on success; else "<doing>: CUDA_ERROR_... (the driver's own words)".
[[nodiscard]] Status status_of(const Driver& driver, Result result, std::string_view doing);

}  // namespace attune::cuda
