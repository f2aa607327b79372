// A stand-in for the CUDA driver's library: it computes nothing, records every call, holds callers to
// the driver's rules, and fails when told to. Tests reach these through dlsym.
#pragma once

#include <attune/params.h>

#include <cstddef>

namespace attune::testing {

struct StandInDevice {
  int arch = 90;
  int shared_per_block = 232448;
  int sms = 132;
  int l2_bytes = 50 << 20;
  bool reads_host_memory = false;
};

// What a launch was.
struct StandInLaunch {
  unsigned grid_x, grid_y, grid_z, threads, shared_bytes, cluster;
  bool programmatic;
  void* stream;
  void* context;
  char function[64];
  kernel::ForwardParams params;     // backward: those within the others
  kernel::BackwardParams backward;  // of a cubin with the kernels of backward
};

inline constexpr int kStandInLaunches = 8;  // so many are kept after each reset

// A tensor that was described to the copy engine, of four dimensions.
struct StandInTensorMap {
  int type;
  void* data;
  unsigned long long sizes[4], strides[3];
  unsigned box[4];
};

struct StandInControl {
  // Forgets everything that was recorded and every order to fail; devices are as given.
  void (*reset)(const StandInDevice* devices, int count);
  // The call of this name (as in libcuda, e.g. "cuLaunchKernelEx") answers `result` after `skip`
  // more that work.
  void (*fail)(const char* name, int result, int skip);
  // Names of all calls since the reset, each on a line; valid until the next call of this.
  const char* (*log)();
  int (*count)(const char* name);  // calls of that name since the reset
  int (*calls)();                  // all calls since the reset
  const StandInLaunch* (*latest)();
  const StandInLaunch* (*launch)(int n);  // the n-th since the reset, of the first few
  int (*launches)();
  const StandInTensorMap* (*tensor_map)(int n);  // the n-th since the reset, of as many
  int (*tensor_maps)();
  void (*quiet)(bool on);      // records nothing: for measuring what a call costs its caller
  void (*forget_memory)();     // frees what is still allocated
  std::size_t (*allocated)();  // bytes of device memory now
  void* (*create_context)(int device);
  void (*destroy_context)(void* context);  // the next one created has its address
  void (*set_current)(void* context);      // of this thread; null: none
  void* (*current)();
  void* (*primary)(int device);  // null until it is retained
  void (*renew_primaries)();     // as new: nothing is loaded into them
  void* (*create_stream)(void* context);
  // The call of this number since the reset, whatever it is, answers `result`; -1: none does.
  void (*fail_at)(int call, int result);
  // What a launch since the reset was, as text: kernel, grid, block, attributes and the bytes of its
  // arguments, each with as many as the image says; valid until the next call of this.
  const char* (*launch_text)(int n);
  const char* (*latest_image)();  // "ELF", "PTX", "fatbin" or "": what was loaded last
  int (*modules)();               // loaded now
  int (*primaries)();             // times that primary contexts are retained, beyond being released
  void (*begin_capture)(void* stream);
  void (*end_capture)(void* stream);
  // Whether the stream's capture, begun and ended by the driver's own calls, is still valid.
  bool (*capture_is_valid)(void* stream);
};

// The symbol under which the library has its StandInControl.
inline constexpr const char* kStandInSymbol = "attune_stand_in_control";

}  // namespace attune::testing
