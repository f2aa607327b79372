// Which keys a block of threads of the backward pass owns, which queries attend to them, and whose turn
// it is to add to dQ where the order matters.
#pragma once

#include <attune/arch/global.cuh>
#include <attune/part/sequence.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// A block of keys of one head. Tiles go by slices of heads whose queries fit the L2 cache together;
// inside a slice the first block of keys first, since under a causal mask it has the most queries. Where
// blocks of keys take turns in dQ, the last one first: under a causal mask it meets a block of queries
// before those in front of it do.
struct KeyPlace {
  int block, hkv, b;
  __device__ __forceinline__ KeyPlace(const BackwardParams& p, i64 tile) {
    if (p.key_tiles >> 31 == 0) {
      place<u32>(p, static_cast<u32>(tile));
    } else {
      place<u64>(p, static_cast<u64>(tile));
    }
  }

  template <typename Int>
  __device__ __forceinline__ void place(const BackwardParams& p, Int tile) {
    const Int slice_heads = p.f.heads_a_slice, blocks = p.key_blocks;
    const Int pairs = static_cast<Int>(p.f.b) * static_cast<Int>(p.f.hkv);
    const Int slice = tile / (slice_heads * blocks);
    const Int rest = tile - slice * (slice_heads * blocks);
    const Int heads = smaller<Int>(slice_heads, pairs - slice * slice_heads);
    const Int number = rest / heads;
    const Int pair = slice * slice_heads + (rest - number * heads);
    block = static_cast<int>(p.turns == nullptr ? number : blocks - 1 - number);
    b = static_cast<int>(pair / static_cast<Int>(p.f.hkv));
    hkv = static_cast<int>(pair - static_cast<Int>(b) * static_cast<Int>(p.f.hkv));
  }
};

// Query i attends to keys [i + low, i + high).
struct Diagonals {
  static constexpr int kMostQueries = 0x7fffffff;
  i64 low, high;
  __device__ __forceinline__ Diagonals(const ForwardParams& p, const Sequence& s) {
    const i64 diagonal = p.bottom_right != 0 ? static_cast<i64>(s.sk) - s.sq : 0;
    low = diagonal + p.mask_low;
    high = diagonal + p.mask_high;
  }
  // Queries that attend to some of the keys [j, j + keys); both ends never decrease as j grows.
  [[nodiscard]] __device__ __forceinline__ Range queries_of(const Sequence& s, int j,
                                                            int keys) const {
    return {static_cast<int>(clamp<i64>(j - high + 1, 0, s.sq)),
            static_cast<int>(clamp<i64>(j + keys - low, 0, s.sq))};
  }

  // Blocks of queries from first_whole() to last_whole() attend to all keys [j, j + keys).
  [[nodiscard]] __device__ __forceinline__ int first_whole(int j, int keys) const {
    return static_cast<int>(clamp<i64>(j + keys - high, 0, kMostQueries));
  }
  [[nodiscard]] __device__ __forceinline__ int last_whole(const Sequence& s, int j, int queries,
                                                          int keys) const {
    if (keys > s.sk - j) return -1;
    return static_cast<int>(clamp<i64>(j - low - queries + 1, -1, kMostQueries));
  }
};

// Blocks of kQueries queries that meet the kKeys keys from j on.
template <int kQueries, int kKeys>
struct Visits {
  int first, count;  // the first one's first query
  __device__ __forceinline__ Visits(const Diagonals& diagonals, const Sequence& s, int j) {
    const Range queries = diagonals.queries_of(s, j, kKeys);
    first = queries.begin / kQueries * kQueries;
    count = queries.end > queries.begin ? (queries.end - first + kQueries - 1) / kQueries : 0;
  }

  // How many blocks of keys after that of j meet the kQueries queries from i on, which meet j's: they
  // follow it without a gap.
  static __device__ __forceinline__ u32 later(const Diagonals& diagonals, const Sequence& s, int i,
                                              int j) {
    const i64 reach = smaller<i64>(smaller(i + kQueries, s.sq) - 1 + diagonals.high, s.sk);
    return static_cast<u32>((reach - 1) / kKeys) - j / kKeys;
  }
};

// The number of a block of queries in memory: packed sequences begin anew.
__device__ __forceinline__ i64 row_block(const BackwardParams& p, const Sequence& s, int b,
                                         int block, int queries) {
  if (p.f.cu_seqlens_q.data != nullptr) return static_cast<i64>(s.q_start / queries) + b + block;
  return static_cast<i64>(b) * p.f.query_blocks + block;
}

// A block of queries of a head, among all: where its RowFacts and its sums of dQ lie.
__device__ __forceinline__ i64 head_block(const BackwardParams& p, const Sequence& s, int b, int h,
                                          int block, int queries) {
  return row_block(p, s, b, block, queries) * p.f.hq + h;
}

}  // namespace attune::kernel
