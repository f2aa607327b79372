// What masks and dropout leave of a warp's tile.
#pragma once

#include <attune/part/philox.cuh>
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

// Calls each(e, whether it is kept) for the four elements from 8 * n words past `row`, a word of the stream,
// on. kStraddle: they may lie in two Philox blocks.
template <bool kStraddle, typename Keys, typename Each>
__device__ __forceinline__ void draw_four(const DropoutStream& stream, const Keys& keys, u64 row,
                                          int n, const Each& each) {
  const u64 index = row + 8 * n;
  const PhiloxBlock block = philox(keys, kStraddle ? index >> 2 : (row >> 2) + 2 * n);
  PhiloxBlock next = block;
  u32 phase = 0;
  if constexpr (kStraddle) {
    phase = static_cast<u32>(index) & 3u;
    next = philox(keys, (index + 4) >> 2);  // it wraps before it is divided
  }
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    u32 word = block.word[e];
    if constexpr (kStraddle) {
#pragma unroll
      for (u32 by = 1; by < 4; ++by) {
        const u32 other = e + by < 4 ? block.word[(e + by) % 4] : next.word[(e + by) % 4];
        if (phase == by) word = other;
      }
    }
    each(e, stream.keeps(word));
  }
}

// Where the four elements that a thread draws at once begin, past its tile's first key.
template <typename W>
__device__ __forceinline__ int first_drawn() {
  const int t = threadIdx.x % 4;
  return W::kTogether == 4 ? 4 * t : t % 2 * 8 + t / 2 * 4;
}

// Calls body(m, half, group, key of four, whether it is kept) for every element of a warp's tile; row0 is
// the word of the stream of this thread's first row and first_drawn() key.
template <typename W, bool kStraddle, typename Keys, typename Body>
__device__ __forceinline__ void draw(const DropoutStream& stream, const Keys& keys, u64 row0,
                                     int sk, const Body& body) {
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const u64 row = row0 + static_cast<u64>(16 * m + 8 * half) * sk;
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; n += 2) {
        if constexpr (W::kTogether == 4) {
          draw_four<kStraddle>(stream, keys, row, n,
                               [&](int e, bool kept) { body(m, half, n / 2, e, kept); });
        } else {
          // A thread has two neighbours of a tile and two of the next: it draws four of one for itself and a
          // neighbour, who draws those of the other.
          u32 mine = 0;
          draw_four<kStraddle>(stream, keys, row, n,
                               [&](int e, bool kept) { mine |= static_cast<u32>(kept) << e; });
          const bool odd = threadIdx.x % 2 != 0;
          const u32 other = __shfl_xor_sync(~0u, mine, 1);
          const u32 low = odd ? other >> 2 : mine, high = odd ? mine >> 2 : other;
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            body(m, half, n / 2, e, ((e < 2 ? low : high) >> e % 2 & 1u) != 0);
          }
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
  const u64 row0 = dropout_row(params, b, h, row) + j + first_drawn<W>() + stream.offset;
  // Four neighbours share a Philox block where each row starts on one: nearly always. Keys from the
  // parameters then save an addition a round.
  const bool together = ((static_cast<u32>(row0) | static_cast<u32>(params.sk)) & 3u) == 0;
  if (params.dropout.state == nullptr && __all_sync(~0u, together)) {
    draw<W, false>(stream, ParameterKeys{params.dropout}, row0, params.sk, body);
  } else {
    draw<W, true>(stream, SeedKeys(stream.seed), row0, params.sk, body);
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
