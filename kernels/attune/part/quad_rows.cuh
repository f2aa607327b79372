// Fragments of 16-bit results to memory without a detour: the four lanes of a row exchange words, so that
// each has 16 neighbouring bytes.
#pragma once

#include <attune/arch/global.cuh>
#include <attune/part/element.cuh>

namespace attune::kernel {

// Word i of lane t becomes word t of lane i.
__device__ __forceinline__ void transpose_quad(u32 (&x)[4]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool later = (t & distance) != 0;
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      u32& a = x[distance == 1 ? 2 * pair : pair];
      u32& b = x[(distance == 1 ? 2 * pair : pair) + distance];
      const u32 got = __shfl_xor_sync(~0u, later ? a : b, distance);
      (later ? a : b) = got;
    }
  }
}

// One row of this thread's from each half of a row tile: `row` where its column 0 lies, null past the end.
template <Element kElement, int kTiles>
__device__ __forceinline__ void write_row(typename Elements<kElement>::Bits* row,
                                          const float (&x)[kTiles][4], int half, int columns) {
  using E = Elements<kElement>;
  static_assert(kTiles % 4 == 0);
#pragma unroll
  for (int n = 0; n < kTiles; n += 4) {
    u32 words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = E::pack(x[n + i][2 * half], x[n + i][2 * half + 1]);
    transpose_quad(words);
    const int column = 8 * (n + static_cast<int>(threadIdx.x % 4));
    store_global(row + column, words, row != nullptr && column < columns);
  }
}

}  // namespace attune::kernel
