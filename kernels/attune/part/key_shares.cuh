// How the blocks of threads of a cluster share the keys of one tile.
#pragma once

#include <attune/arch/cluster.cuh>
#include <attune/part/hopper_tiles.cuh>

namespace attune::kernel {

// Each has `each` blocks of keys, but for the last of the `used`, which may have fewer. The rest have none.
struct KeyShares {
  int each, used;

  __device__ __forceinline__ KeyShares(const KeyBlocks& all, int blocks) {
    const int count = all.end - all.first;
    each = (count + blocks - 1) / blocks;
    used = (count + each - 1) / each;
  }

  // Empty where it ends at its first.
  [[nodiscard]] __device__ __forceinline__ KeyBlocks of(const KeyBlocks& all, int rank) const {
    const int first = smaller(all.first + rank * each, all.end);
    return {first, smaller(first + each, all.end)};
  }
};

// In place of TileWalk: the tile of this cluster, and no other. Those with the most keys come first.
struct ClusterWalk {
  u32 step = 0;

  __device__ __forceinline__ bool next(const HopperParams& p, TilePlace& place, bool& here) {
    if (step++ != 0) return false;
    const u32 number = blockIdx.x / static_cast<u32>(cluster_blocks());
    here = true;
    const u32 heads = static_cast<u32>(p.f.hq) >> p.f.pack_shift;
    const u32 pairs = heads * static_cast<u32>(p.f.b), from_last = number / pairs;
    const u32 pair = number - from_last * pairs, b = pair / heads;
    place.block = p.f.query_blocks - 1 - static_cast<int>(from_last);
    place.b = static_cast<int>(b);
    place.h = static_cast<int>(pair - b * heads) << p.f.pack_shift;
    return true;
  }
};

}  // namespace attune::kernel
