// What masks leave of a warp's tile.
#pragma once

#include <attune/part/products.cuh>
#include <attune/part/score.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// -inf where a row does not attend to a key; keys start at j.
template <typename W, typename Sides>
__device__ __forceinline__ void apply_mask(typename W::Scores& s, const Sides& sides, int j) {
  const int mine = W::first_key();
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = thread_row<W>(m, half);
      // As distances from this thread's first key, so that each element is one comparison.
      const int low = sides.begin(row) - j - mine, high = sides.end(row) - j - mine;
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int key = W::key_at(n, e);
          float& x = s[m][n][2 * half + e];
          if (key < low || key >= high) x = -infinity();
        }
      }
    }
  }
}

// The same for the column tiles [kFirst, kEnd) alone. What a row attends to of them is made a mask of bits, which
// takes two instructions an element in place of three that wait for each other.
template <typename W, int kFirst, int kEnd, typename Sides>
__device__ __forceinline__ void apply_mask_bits(typename W::Scores& s, const Sides& sides, int j) {
  constexpr int kTiles = kEnd - kFirst;
  static_assert(W::kTogether == 2 && kTiles < 16);
  const int from = j + W::first_key() + kFirst * 8;
  // Of a thread's elements, those of the first x keys: two of each eight.
  const auto bits_below = [](int x) {
    x = clamp(x, 0, 8 * kTiles);
    return (1u << (x / 8 * 2 + smaller(x % 8, 2))) - 1;
  };
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = thread_row<W>(m, half);
      const u32 attended = bits_below(sides.end(row) - from) & ~bits_below(sides.begin(row) - from);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if ((attended & 1u << (2 * n + e)) == 0) s[m][kFirst + n][2 * half + e] = -infinity();
        }
      }
    }
  }
}

}  // namespace attune::kernel
