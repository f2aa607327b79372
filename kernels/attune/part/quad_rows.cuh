// Fragments of 16-bit results to memory without a detour: neighbouring lanes exchange words, so that each has 8
// neighbouring bytes, and four of them the 32 that memory is written by.
#pragma once

#include <attune/arch/global.cuh>
#include <attune/part/element.cuh>

namespace attune::kernel {

// One row of this thread's from each half of a row tile, times `factor`: `row` where its column 0 lies, null
// past the end. Whether all elements are finite.
template <Element kElement, int kTiles, int kAll>
__device__ __forceinline__ bool write_row(typename Elements<kElement>::Bits* row,
                                          const float (&x)[kAll][4], int half, float factor,
                                          int columns) {
  using E = Elements<kElement>;
  static_assert(kTiles % 2 == 0);
  const int t = threadIdx.x % 4;
  const bool odd = t % 2 != 0;
  const auto word = [&](int n) {
    return E::pack(x[n][2 * half] * factor, x[n][2 * half + 1] * factor);
  };
  u32 zeros[2] = {0, 0};  // neither sum waits for the other
#pragma unroll
  for (int n = 0; n < kTiles; n += 2) {
    const u32 a = word(n), b = word(n + 1);
    zeros[0] = E::add_zeros(a, zeros[0]);
    zeros[1] = E::add_zeros(b, zeros[1]);
    const u32 got = __shfl_xor_sync(~0u, odd ? a : b, 1);
    const u32 both[2] = {odd ? got : a, odd ? b : got};
    const int column = 8 * n + (odd ? 8 : 0) + t / 2 * 4;
    store_global(row + column, both, row != nullptr && column < columns);
  }
  return ((zeros[0] | zeros[1]) & 0x7fff7fffu) == 0;
}

}  // namespace attune::kernel
