// The part of the CUDA driver's interface that Attune calls, declared here because the build needs
// no CUDA header. A test compares it with cuda.h where that is installed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace attune::cuda {

using Result = int;
using Device = int;
using DevicePointer = unsigned long long;
using Context = struct ContextTag*;
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;
using Stream = struct StreamTag*;
using Event = struct EventTag*;
using Graph = struct GraphTag*;
using GraphExec = struct GraphExecTag*;

inline constexpr Result kSuccess = 0;
inline constexpr Result kErrorInvalidValue = 1;
inline constexpr Result kErrorOutOfMemory = 2;
inline constexpr Result kErrorNotInitialized = 3;
inline constexpr Result kErrorDeinitialized = 4;
inline constexpr Result kErrorNoDevice = 100;
inline constexpr Result kErrorInvalidDevice = 101;
inline constexpr Result kErrorInvalidContext = 201;
inline constexpr Result kErrorInvalidHandle = 400;

inline constexpr int kAttributeSms = 16;
inline constexpr int kAttributeL2Bytes = 38;
inline constexpr int kAttributeMajor = 75;
inline constexpr int kAttributeMinor = 76;
inline constexpr int kAttributeSharedPerBlock = 97;   // that a kernel may opt in to
inline constexpr int kAttributeHostPageTables = 100;  // the device reads any host memory

inline constexpr int kFunctionMaxThreads = 0;
inline constexpr int kFunctionStaticShared = 1;
inline constexpr int kFunctionLocalBytes = 3;
inline constexpr int kFunctionRegisters = 4;
inline constexpr int kFunctionDynamicShared = 8;
inline constexpr int kFunctionNonPortableCluster = 14;

inline constexpr int kPointerMemoryType = 2;

inline constexpr int kCaptureRelaxed = 2;
inline constexpr unsigned kEventDefault = 0;
inline constexpr unsigned kStreamNonBlocking = 1;

inline constexpr unsigned kAttributeCooperative = 2;
inline constexpr unsigned kAttributeCluster = 4;
inline constexpr unsigned kAttributeClusterPolicy = 5;
inline constexpr unsigned kAttributeProgrammatic = 6;  // starts before its predecessor has ended

inline constexpr int kTensorMapU8 = 0;
inline constexpr int kTensorMapF16 = 6;
inline constexpr int kTensorMapBf16 = 9;
inline constexpr int kTensorMapSwizzle128 = 3;
inline constexpr int kTensorMapPromote256 = 3;  // what the L2 fetches at a time, in bytes

union LaunchAttributeValue {
  char bytes[64];
  struct {
    unsigned x, y, z;
  } cluster;
  int cooperative;
  int cluster_policy;
  int programmatic;
};

inline constexpr int kClusterSpread =
    1;  // a cluster's blocks over the processors of a part of the GPU

struct LaunchAttribute {
  unsigned id;
  char pad[4];
  LaunchAttributeValue value;
};

struct LaunchConfig {
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};

inline constexpr unsigned kDeviceMemory = 2;

// A copy of rows: as CUDA_MEMCPY2D.
struct Copy2D {
  std::size_t from_x, from_y;
  unsigned from_type;
  const void* from_host;
  DevicePointer from_device;
  void* from_array;
  std::size_t from_pitch;
  std::size_t to_x, to_y;
  unsigned to_type;
  void* to_host;
  DevicePointer to_device;
  void* to_array;
  std::size_t to_pitch;
  std::size_t width_bytes, height;
};

}  // namespace attune::cuda
