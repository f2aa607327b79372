// Which tiles a block of threads of a persistent grid computes, in which order.
#pragma once

#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// Where later queries have more keys and tiles are many, a block takes the first and the last tile of a head,
// then the second and the last but one of another: all have the same work, and those at work share few heads'
// keys. Otherwise tiles go by their number, to and fro: who had a long one gets a short one.
// Mates go together, and so do their tiles.
template <bool kMates>
struct TileWalk {
  u32 step = 0;

  // False when no tile is left, or true: then `here` says whether this step has one.
  __device__ __forceinline__ bool next(const HopperParams& p, TilePlace& place, bool& here) {
    constexpr u32 kMany = kMates ? 2 : 1;
    const u32 grid = gridDim.x / kMany, own = blockIdx.x / kMany, now = step++;
    if (p.pairs != 0) {
      const u32 blocks = p.f.query_blocks, half = (blocks + 1) / 2;
      const u32 unit = now / 2 * grid + own;
      if (unit >= p.pairs) return false;
      const u32 head = unit / half;
      // Each round starts elsewhere, or a block could meet the tile in the middle, which is alone, each time.
      const u32 from_end = (unit + head * half / grid) % half;
      const u32 from_start = blocks - 1 - from_end;
      place.block = static_cast<int>(now % 2 == 0 ? from_start : from_end);
      place.b = static_cast<int>(head / static_cast<u32>(p.f.hq));
      place.h = static_cast<int>(head - place.b * static_cast<u32>(p.f.hq));
      here = now % 2 == 0 || from_start != from_end;
      part(p, place);
      return true;
    }
    const u32 first = now * grid;
    if (first >= p.f.tiles) return false;
    const u32 number = first + (now % 2 == 0 ? own : grid - 1 - own);
    here = number < p.f.tiles;
    if (here) {
      place = TilePlace(p.f, number);
      part(p, place);
    }
    return true;
  }

  // One for each mate, of the place of both.
  static __device__ __forceinline__ void part(const HopperParams& p, TilePlace& place) {
    if constexpr (kMates) {
      const bool heads = p.mates_are_heads != 0;
      const int mine = static_cast<int>(blockIdx.x % 2);
      place.h = heads ? 2 * place.h + mine : place.h;
      place.block = heads ? place.block : 2 * place.block + mine;
    }
  }
};

}  // namespace attune::kernel
