// What masks and dropout leave of a warp's tile.
#pragma once

#include <attune/part/philox.cuh>
#include <attune/part/products.cuh>
#include <attune/part/score.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// -inf where a row does not attend to a key; keys start at j.
template <typename W>
__device__ __forceinline__ void apply_mask(typename W::Scores& s, const MaskSides& sides, int j) {
  const int first = j + W::first_key();
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = thread_row<W>(m, half);
      // As distances from this thread's first key, so that each element is one comparison.
      const int low = sides.begin(row) - first, high = sides.end(row) - first;
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

// Whether each of the four elements from word `index` of the stream on is kept, as bits. kStraddle: they
// may lie in two Philox blocks.
template <bool kStraddle, typename Keys>
__device__ __forceinline__ u32 draw_four(const DropoutStream& stream, const Keys& keys, u64 index) {
  const PhiloxBlock block = philox(keys, index >> 2);
  u32 kept = 0;
#pragma unroll
  for (int e = 0; e < 4; ++e) kept |= static_cast<u32>(stream.keeps(block.word[e])) << e;
  if constexpr (kStraddle) {
    const PhiloxBlock next = philox(keys, (index + 4) >> 2);  // it wraps before it is divided
#pragma unroll
    for (int e = 0; e < 4; ++e) kept |= static_cast<u32>(stream.keeps(next.word[e])) << (4 + e);
    kept >>= static_cast<u32>(index) & 3u;
  }
  return kept;
}

// Calls body(m, half, group, key of four, whether it is kept) for every element of a warp's tile, whose
// first row and key are word `first` of the stream.
template <typename W, bool kStraddle, typename Keys, typename Body>
__device__ __forceinline__ void draw(const DropoutStream& stream, const Keys& keys, u64 first,
                                     int sk, const Body& body) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const u64 row = first + static_cast<u64>(16 * m + 8 * half) * sk;
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; n += 2) {
        // Four neighbours at a time. Where a thread has two of a tile and two of the next, it draws those
        // of one for itself and a neighbour, who draws those of the other.
        constexpr bool kShared = W::kTogether == 2;
        const int four = kShared ? t % 2 * 8 + t / 2 * 4 : 4 * t;
        const u32 mine = draw_four<kStraddle>(stream, keys, row + 8 * n + four);
        u32 low = mine, high = mine >> 2;
        if constexpr (kShared) {
          const u32 other = __shfl_xor_sync(~0u, mine, 1);
          low = t % 2 == 0 ? mine : other >> 2;
          high = t % 2 == 0 ? other : mine >> 2;
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          body(m, half, n / 2, e, ((e < 2 ? low : high) >> e % 2 & 1u) != 0);
        }
      }
    }
  }
}

// draw() for the elements from `row`, this thread's first query, and key j on. Not called at all where
// nothing is dropped.
template <typename W, typename Body>
__device__ __forceinline__ void draw_dropout(const ForwardParams& params, int b, int h, int row,
                                             int j, const Body& body) {
  const DropoutStream stream(params.dropout);
  if (stream.keeps_all()) return;
  const u64 first = dropout_row(params, b, h, row) + j + stream.offset;
  // Four neighbours share a Philox block where each row starts on one: nearly always. Keys from the
  // parameters then save an addition a round.
  const bool together = ((static_cast<u32>(first) | static_cast<u32>(params.sk)) & 3u) == 0;
  if (params.dropout.state == nullptr && __all_sync(~0u, together)) {
    draw<W, false>(stream, ParameterKeys{params.dropout}, first, params.sk, body);
  } else {
    draw<W, true>(stream, SeedKeys(stream.seed), first, params.sk, body);
  }
}

// Drops elements of P; 1 / (1 - dropout) waits until the end. `row` is this thread's first query.
template <typename W>
__device__ __forceinline__ void apply_dropout(typename W::Scores& p, const ForwardParams& params,
                                              int b, int h, int row, int j) {
  draw_dropout<W>(params, b, h, row, j, [&](int m, int half, int group, int e, bool kept) {
    if (!kept) p[m][2 * group + e / 2][2 * half + e % 2] = 0.0f;
  });
}

}  // namespace attune::kernel
