// Descriptors of tensors for kernels that load and store whole tiles (TMA).
#pragma once

#include <cinttypes>

#include "wrap/runtime/launch.h"

namespace attune::wrapped {

struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

struct TensorMapExtents {
  std::int64_t of[5];
  TensorMapExtents(std::initializer_list<std::int64_t> list) : of{} {
    int axis = 0;
    for (const std::int64_t extent : list) of[axis++] = extent;
  }
};

struct TensorMapKind {
  int rank;
  int element_type;  // as CUtensorMapDataType
  int element_bytes;
  int swizzle;  // as CUtensorMapSwizzle
};

// A tensor by its shape and strides, in elements, and a tile of it: the driver wants the innermost
// dimension first, and strides in bytes of all but that one.
inline int encode(TensorMap* map, const char* name, DevicePointer address,
                  const TensorMapKind& kind, const TensorMapExtents& shape,
                  const TensorMapExtents& strides, const TensorMapExtents& block) {
  if (driver().encode_tiled == nullptr) {
    return fail(ATTUNE_WRAPPED_UNSUPPORTED, "argument %s: the driver makes no tensor maps", name);
  }
  unsigned long long extents[5] = {}, pitches[5] = {};
  unsigned tile[5] = {}, steps[5] = {};
  for (int axis = 0; axis < kind.rank; ++axis) {
    const int from = kind.rank - 1 - axis;
    extents[axis] = static_cast<unsigned long long>(shape.of[from]);
    pitches[axis] = static_cast<unsigned long long>(strides.of[from] * kind.element_bytes);
    tile[axis] = static_cast<unsigned>(block.of[from]);
    steps[axis] = 1;
    if (axis == 0 && strides.of[from] != 1) {
      return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                  "argument %s: its last stride is %" PRId64 ", expected 1", name,
                  strides.of[from]);
    }
    if (axis > 0 && pitches[axis] % 16 != 0) {
      return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                  "argument %s: strides[%d] is %" PRId64
                  " elements, expected a multiple of 16 bytes",
                  name, from, strides.of[from]);
    }
  }
  if (address % 16 != 0) {
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                "argument %s lies at 0x%llx, expected a multiple of 16 bytes", name, address);
  }
  // No interleave, lines of 128 bytes in the L2, zeros outside: as Triton has it.
  constexpr int kNoInterleave = 0, kL2Lines = 2, kZeros = 0;
  const Result result = driver().encode_tiled(
      map, kind.element_type, static_cast<unsigned>(kind.rank), reinterpret_cast<void*>(address),
      extents, pitches + 1, tile, steps, kNoInterleave, kind.swizzle, kL2Lines, kZeros);
  if (result == cuda::kSuccess) return ATTUNE_WRAPPED_OK;
  char doing[128];
  std::snprintf(doing, sizeof(doing), "argument %s: making its tensor map", name);
  return driver_failed(result, doing);
}

}  // namespace attune::wrapped
