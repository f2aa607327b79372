// The bias of a warpgroup's S, from shared memory as the copy engine leaves it.
#pragma once

#include <attune/kernel/forward_hopper_layout.h>

#include <attune/arch/shared.cuh>
#include <attune/part/score.cuh>

namespace attune::kernel {

// Raw products -> natural scores. `tile`: panels of [kQueries][64 keys], each row's 16 bytes of 8 keys
// exchanged by the row's number (PTX ISA, "128-byte swizzle"). Where a product is infinite or NaN a bias of
// -inf does not hide it: such rows' sums are NaN, and they are computed again.
template <typename W>
__device__ __forceinline__ void add_copied_bias(typename W::Scores& s, u32 tile, float scale) {
  using E = Elements<W::kElement>;
  static_assert(W::kRowTiles == 1);
  const u32 lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const u32 row = tile + static_cast<u32>(thread_row<W>(0, half)) * kPanelBytes + lane % 4 * 4;
#pragma unroll
    for (int n = 0; n < W::kKeyTiles; ++n) {
      const u32 chunk = static_cast<u32>(n % 8) ^ lane / 4;
      const u32 two = load_shared(row + n / 8 * (W::kQueries * kPanelBytes) + chunk * 16);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = s[0][n][2 * half + e];
        x = fmaf(x, scale, E::to_float(static_cast<unsigned short>(two >> 16 * e)));
      }
    }
  }
}

}  // namespace attune::kernel
