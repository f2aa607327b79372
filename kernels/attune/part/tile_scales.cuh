// What stored numbers of f8e4m3 are multiplied by: scales of each sequence's heads.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

// Of the queries of one (batch, head): of raw products, to powers of two, and of O.
struct TileScales {
  float products, values;
};

__device__ __forceinline__ float scale_of(const HeadScales& scales, int b, int h) {
  return scales.data != nullptr ? scales.data[b * scales.b_stride + h * scales.h_stride] : 1.0f;
}

__device__ __forceinline__ TileScales scales_of(const HopperParams& p, int b, int h) {
  const int hkv = h / p.f.group;
  return {p.f.scale_log2 * scale_of(p.q_scale, b, h) * scale_of(p.k_scale, b, hkv),
          scale_of(p.v_scale, b, hkv)};
}

}  // namespace attune::kernel
