// What every tile of the portable family begins with.
#pragma once

#include <attune/kernel/forward_portable_layout.h>

#include <attune/part/result.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// Finds out which tile this is and writes what belongs to no query; false when nothing else is left.
template <PortableSpec kSpec, typename W>
__device__ __forceinline__ bool begin_tile(const ForwardParams& p, TileFacts& facts) {
  static_assert(sizeof(TileFacts) <= kTileFactsBytes);
  using Bits = typename Elements<kSpec.element>::Bits;
  if (TilePlace::number() >= p.tiles) return false;
  const TilePlace tile(p);
  const Sequence seq = sequence_of(p, tile.b);
  write_outside<kSpec.element, threads_of(kSpec)>(p, seq, tile, W::kQueries, threadIdx.x);
  if (tile.block * W::kQueries >= seq.sq) return false;
  if (threadIdx.x == 0) {
    const int hkv = tile.h / p.group;
    facts = {tile, seq, MaskSides(p, seq, tile.block * W::kQueries),
             first_key_row<Bits, takes_pages(kSpec)>(p, p.k, tile.b, seq.k_start, hkv),
             first_key_row<Bits, takes_pages(kSpec)>(p, p.v, tile.b, seq.k_start, hkv)};
  }
  __syncthreads();
  return true;
}

}  // namespace attune::kernel
