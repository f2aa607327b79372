// What dropout leaves of a warp's tile.
#pragma once

#include <attune/arch/bytes.cuh>
#include <attune/arch/carry.cuh>
#include <attune/part/dropout_stream.cuh>
#include <attune/part/products.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// A bit for each element of this thread, so that they can be drawn before there are scores: of the first two and of
// the second two of each group of four (products.cuh). A Philox block is four neighbours of a row; where a thread
// has two neighbours of a tile and two of the next, it draws four of one for itself and a neighbour, who draws those
// of the other.
template <typename W, bool kDrops = true>
struct KeptElements {
  u32 low[W::kRowTiles], high[W::kRowTiles];

  // Of the elements from `row`, this thread's first query, and key j on.
  __device__ __forceinline__ void draw(const ForwardParams& params, int b, int h, int row, int j) {
    if constexpr (W::kTogether == 4) {
      if (params.dropout.bytes != 0) {
        draw_bytes(params, b, h, row, j);
        return;
      }
    }
    draw_words(params, b, h, row, j);
  }

  // Of element e of four.
  [[nodiscard]] __device__ __forceinline__ bool keeps(int m, int half, int group, int e) const {
    return ((e < 2 ? low[m] : high[m]) & 1u << bit(half, group, e % 2)) != 0;
  }

  // Drops elements of P; 1 / (1 - dropout) waits until the end.
  __device__ __forceinline__ void apply(typename W::Scores& p) const {
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (!keeps(m, i / 2, n / 2, n % 2 * 2 + i % 2)) p[m][n][i] = 0.0f;
        }
      }
    }
  }

 private:
  static constexpr int kGroups = W::kKeyTiles / 2;
  static_assert(W::kKeyTiles % 2 == 0 && 4 * kGroups <= 32);
  // O leaves few registers: where blocks are cut, one word is drawn at a time, each by a block of its own.
  static constexpr bool kSparing = W::kTogether == 2 && W::kWidthTiles > 24;

  __device__ __forceinline__ void draw_words(const ForwardParams& params, int b, int h, int row,
                                             int j) {
    const WordStream stream(params.dropout);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) low[m] = high[m] = stream.keep_none ? 0 : ~0u;
    if (stream.keep_from == 0) return;
    const u64 sk = static_cast<u64>(params.sk);
    const u64 begin = dropout_row(params, b, h, row) + j + first_drawn() + stream.offset;
    const u64 end = begin + (16 * W::kRowTiles - 8) * sk + 8 * W::kKeyTiles;
    // Nearly always each row starts on a block, and all blocks have the same high word.
    const bool regular =
        ((static_cast<u32>(begin) | static_cast<u32>(sk)) & 3u) == 0 && begin >> 34 == end >> 34;
    if (__all_sync(~0u, regular)) {
      const WordBlocks blocks(stream.keys(), static_cast<u32>(begin >> 34));
      const u32 first = static_cast<u32>(begin >> 2), stride = static_cast<u32>(sk >> 2);
      for_each_row([&](int m, int half) {
        const u64 product = (first + (16 * m + 8 * half) * stride) * kPhiloxFirst;
#pragma unroll
        for (int group = 0; group < kGroups; ++group)
          append(m, blocks.behind(product, 4 * group), stream);
      });
    } else if constexpr (kSparing) {
      const u32 room = 0u - stream.keep_from;
      u64 at = begin;
#pragma unroll 1
      for (int n = 0; n < 2 * kGroups; ++n) {
#pragma unroll 1
        for (int e = 0; e < 2; ++e) append_carry(low[0], stream.word(at + e), room);
#pragma unroll 1
        for (int e = 2; e < 4; ++e) append_carry(high[0], stream.word(at + e), room);
        at += n == kGroups - 1 ? 8 * sk - 16 * (kGroups - 1) : 16;
      }
    } else {
      for_each_row([&](int m, int half) {
        const u64 start = begin + (16 * m + 8 * half) * sk;
#pragma unroll 1
        for (int group = 0; group < kGroups; ++group) {
          append(m, stream.words(start + 16 * group), stream);
        }
      });
    }
    if constexpr (W::kTogether == 2) {
      const bool odd = threadIdx.x % 2 != 0;
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
        const u32 other = __shfl_xor_sync(~0u, odd ? low[m] : high[m], 1);
        low[m] = odd ? other : low[m];
        high[m] = odd ? high[m] : other;
      }
    }
  }

  // The four keys that a thread has of a group lie in one word of each of two blocks; it draws one of them, and the
  // other thread that needs both draws the other.
  __device__ __forceinline__ void draw_bytes(const ForwardParams& params, int b, int h, int row,
                                             int j) {
    const ByteStream stream(params.dropout);
    const SeedKeys keys = stream.keys();
    const int t = static_cast<int>(threadIdx.x % 4);
    const bool later = t >= 2;
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
      const ByteBlocks blocks =
          stream.blocks(keys, head_number(params, b, h), row + 16 * m, t % 2 * 2 + t / 2);
      // Of the first and of the second eight keys of each group, the last that is put in front has the highest bits.
      u32 first = 0, second = 0;
      const auto put = [&](u32 a, u32 b) {
        first = first >> 1 | stream.kept(a);
        second = second >> 1 | stream.kept(b);
      };
      if constexpr (kGroups % 2 == 0) {
#pragma unroll
        for (int group = kGroups - 2; group >= 0; group -= 2) {
          const PhiloxBlock x = blocks.at(static_cast<u32>(j) / 32 + group / 2);
          put(x.word[2], x.word[3]);
          put(x.word[0], x.word[1]);
        }
      } else {  // patches are cut
#pragma unroll 1
        for (int group = kGroups - 1; group >= 0; --group) {
          const u32 at = static_cast<u32>(j) / 16 + group;
          const PhiloxBlock x = blocks.at(at / 2);
          put(at % 2 != 0 ? x.word[2] : x.word[0], at % 2 != 0 ? x.word[3] : x.word[1]);
        }
      }
      const u32 other = __shfl_xor_sync(~0u, later ? first : second, 2);
      low[m] = in_order(later ? other : first);
      high[m] = in_order(later ? second : other);
    }
  }

  // From bit 7 - group of byte 2 * half + e to bit(half, group, e).
  static __device__ __forceinline__ u32 in_order(u32 x) {
    x = reverse_bytes(x);
    // Bytes of a half interleaved, bit by bit.
    const auto swap = [&x](u32 mask, int by) {
      const u32 both = (x ^ x >> by) & mask;
      x ^= both ^ both << by;
    };
    swap(0x00f000f0u, 4);
    swap(0x0c0c0c0cu, 2);
    swap(0x22222222u, 1);
    constexpr int kUnused = 16 - 2 * kGroups;
    return kUnused == 0 ? x : x >> 16 >> kUnused << 2 * kGroups | (x & 0xffffu) >> kUnused;
  }

  template <typename Body>
  static __device__ __forceinline__ void for_each_row(const Body& body) {
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) body(m, half);
    }
  }
  // Where the four elements that a thread draws at once begin, past its tile's first key.
  static __device__ __forceinline__ int first_drawn() {
    const int t = static_cast<int>(threadIdx.x % 4);
    return W::kTogether == 4 ? 4 * t : t % 2 * 8 + t / 2 * 4;
  }
  // The last that is appended has the lowest bit.
  static __device__ __forceinline__ constexpr int bit(int half, int group, int e) {
    return 2 * (2 * kGroups - 1 - (half * kGroups + group)) + 1 - e;
  }
  __device__ __forceinline__ void append(int m, const PhiloxBlock& block,
                                         const WordStream& stream) {
    const u32 room = 0u - stream.keep_from;
    append_carry(low[m], block.word[0], room);
    append_carry(low[m], block.word[1], room);
    append_carry(high[m], block.word[2], room);
    append_carry(high[m], block.word[3], room);
  }
};

template <typename W>
struct KeptElements<W, false> {
  __device__ __forceinline__ void draw(const ForwardParams&, int, int, int, int) {}
  __device__ __forceinline__ void apply(typename W::Scores&) const {}
};

// Drops elements of P, from this thread's first query and key j on.
template <typename W>
__device__ __forceinline__ void drop(typename W::Scores& p, const ForwardParams& params, int b,
                                     int h, int row, int j) {
  KeptElements<W> kept;
  kept.draw(params, b, h, row, j);
  kept.apply(p);
}

}  // namespace attune::kernel
