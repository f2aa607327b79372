// A call on its way through the steps, and the launch of a kernel.
#pragma once

#include <cinttypes>
#include <cstdint>

#include "wrap/runtime/arithmetic.h"
#include "wrap/runtime/load.h"

namespace attune::wrapped {

struct Call {
  const Instance* instance;
  Loaded* loaded;
  Stream stream;
};

// Makes the call's context current and finds what the instance has in it.
inline int enter(Instance& instance, Stream stream, ContextScope& scope, Call& call) {
  if (const int code = scope.enter(instance, stream)) return code;
  call.instance = &instance;
  call.stream = stream;
  return enter_context(instance, scope.context(), &call.loaded);
}

struct Grid {
  std::int64_t x, y, z;
  bool fold;  // what of y is past the limit goes to z: the kernel knows how to read it
};

inline int launch(const Call& call, int variant, Grid grid, void** arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return ATTUNE_WRAPPED_OK;
  const LoadedVariant* loaded = nullptr;
  if (const int code = find_variant(*call.instance, *call.loaded, variant, &loaded)) return code;
  const Binary& binary = *loaded->binary.load(std::memory_order_relaxed);
  constexpr std::int64_t kMostX = 2147483647, kMostY = 65535;
  if (grid.fold && grid.y > kMostY) {
    grid.z = ceil_div(grid.y, kMostY);
    grid.y = ceil_div(grid.y, grid.z);
  }
  if (binary.multiply_grid) {
    grid.x = grid.x > kMostX ? grid.x : grid.x * binary.cluster[0];
    grid.y = grid.y > kMostY ? grid.y : grid.y * binary.cluster[1];
    grid.z = grid.z > kMostY ? grid.z : grid.z * binary.cluster[2];
  }
  if (grid.x > kMostX || grid.y > kMostY || grid.z > kMostY) {
    return fail(ATTUNE_WRAPPED_UNSUPPORTED,
                "a grid of %" PRId64 " x %" PRId64 " x %" PRId64 " blocks; the GPU takes %" PRId64
                " x %" PRId64 " x %" PRId64,
                grid.x, grid.y, grid.z, kMostX, kMostY, kMostY);
  }
  LaunchAttribute attributes[4];
  unsigned count = 0;
  const auto attribute = [&](unsigned id) -> cuda::LaunchAttributeValue& {
    attributes[count] = {};
    attributes[count].id = id;
    return attributes[count++].value;
  };
  if (binary.programmatic) attribute(cuda::kAttributeProgrammatic).programmatic = 1;
  if (binary.cooperative) attribute(cuda::kAttributeCooperative).cooperative = 1;
  if (binary.cluster[0] * binary.cluster[1] * binary.cluster[2] > 1) {
    attribute(cuda::kAttributeCluster).cluster = {binary.cluster[0], binary.cluster[1],
                                                  binary.cluster[2]};
    if (binary.spread) {
      attribute(cuda::kAttributeClusterPolicy).cluster_policy = cuda::kClusterSpread;
    }
  }
  const LaunchConfig config{static_cast<unsigned>(grid.x),
                            static_cast<unsigned>(grid.y),
                            static_cast<unsigned>(grid.z),
                            binary.block[0],
                            binary.block[1],
                            binary.block[2],
                            binary.shared_bytes,
                            call.stream,
                            count > 0 ? attributes : nullptr,
                            count};
  const Result result = driver().launch(&config, loaded->function, arguments, nullptr);
  if (result == cuda::kSuccess) return ATTUNE_WRAPPED_OK;
  char doing[192];
  std::snprintf(
      doing, sizeof(doing),
      "kernel %s: launching %u x %u x %u blocks of %u threads with %u bytes of shared memory",
      call.instance->tables->variants[variant].kernel, config.grid_x, config.grid_y, config.grid_z,
      config.block_x * config.block_y * config.block_z, config.shared_bytes);
  return driver_failed(result, doing);
}

// A workspace of the call's own, in the order of its stream, where the caller gave none.
class OwnWorkspace {
 public:
  explicit OwnWorkspace(Stream stream) : stream_(stream) {}
  ~OwnWorkspace() { (void)release(); }
  OwnWorkspace(const OwnWorkspace&) = delete;
  OwnWorkspace& operator=(const OwnWorkspace&) = delete;

  int allocate(std::int64_t bytes, DevicePointer* out) {
    if (const Result r =
            driver().allocate_async(&memory_, static_cast<std::size_t>(bytes), stream_)) {
      memory_ = 0;
      char doing[64];
      std::snprintf(doing, sizeof(doing), "a workspace of %" PRId64 " bytes", bytes);
      return driver_failed(r, doing);
    }
    *out = memory_;
    return ATTUNE_WRAPPED_OK;
  }

  int release() {
    const DevicePointer memory = memory_;
    memory_ = 0;
    if (memory == 0) return ATTUNE_WRAPPED_OK;
    const Result result = driver().release_async(memory, stream_);
    return result == cuda::kSuccess ? ATTUNE_WRAPPED_OK
                                    : driver_failed(result, "freeing the workspace");
  }

 private:
  Stream stream_;
  DevicePointer memory_ = 0;
};

}  // namespace attune::wrapped
