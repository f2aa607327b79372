// Which tile a block of threads computes, and which rows of it a warp and a thread own.
#pragma once

#include <attune/part/sequence.cuh>

namespace attune::kernel {

// Tiles go by slices of heads whose keys fit the L2 cache together; inside a slice the last block of
// queries first, since under a causal mask it has the most keys.
struct TilePlace {
  int block, h, b;
  TilePlace() = default;

  // The number of this block of threads; those from p.tiles on have no tile.
  static __device__ __forceinline__ i64 number() {
    return static_cast<i64>(blockIdx.y) * gridDim.x + blockIdx.x;
  }
  // Where all tiles are fewer than 2^31.
  __device__ __forceinline__ TilePlace(const ForwardParams& p, u32 tile) { place<u32>(p, tile); }
  __device__ __forceinline__ explicit TilePlace(const ForwardParams& p) {
    if (p.tiles >> 31 == 0) {  // divisions of 64 bits cost a microsecond
      place<u32>(p, blockIdx.x);
    } else {
      place<u64>(p, number());
    }
  }

  template <typename Int>
  __device__ __forceinline__ void place(const ForwardParams& p, Int tile) {
    const Int slice_heads = p.heads_a_slice, blocks = p.query_blocks;
    const Int pairs = static_cast<Int>(p.b) * static_cast<Int>(p.hq);
    const Int slice = tile / (slice_heads * blocks);
    const Int rest = tile - slice * (slice_heads * blocks);
    const Int heads = smaller<Int>(slice_heads, pairs - slice * slice_heads);
    const Int from_last = rest / heads;
    const Int pair = slice * slice_heads + (rest - from_last * heads);
    block = static_cast<int>(blocks - 1 - from_last);
    b = static_cast<int>(pair / static_cast<Int>(p.hq));
    h = static_cast<int>(pair - static_cast<Int>(b) * static_cast<Int>(p.hq));
  }
};

// This thread's row of 16-row tile m, upper or lower half, counted inside the tile of queries.
template <typename W>
__device__ __forceinline__ int thread_row(int m, int half) {
  return W::first_row() + 16 * m + 8 * half + static_cast<int>(threadIdx.x % 32 / 4);
}

// What a tile is, kept in shared memory: what the main loop seldom needs stays out of registers.
struct TileFacts {
  TilePlace place;
  Sequence seq;
  MaskSides sides;
  const void *k, *v;  // row 0 of the head's keys and values
};

// Which part a block of keys from j on plays for a warp's rows: some attend to some of it, all to all of
// it. From shared memory each time, for two bits instead of four registers.
template <typename W>
struct WarpRows {
  bool meet, cover;
  __device__ __forceinline__ WarpRows(const TileFacts& facts, int j) {
    const int first = W::first_row();
    const int rows = facts.seq.sq - facts.place.block * W::kQueries;
    const int last = smaller(first + W::kWarpRows, rows) - 1;
    const MaskSides sides = facts.sides;
    meet = first < rows && j < sides.end(last) && j + W::kKeys > sides.begin(first);
    cover = j >= sides.begin(last) && j + W::kKeys <= sides.end(first);
  }
};

}  // namespace attune::kernel
