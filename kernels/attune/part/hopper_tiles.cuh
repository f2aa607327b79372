// What the two sides of the Hopper kernels share: tiles, told of in turn by the warp that copies, and the
// rings of Q, K and V.
#pragma once

#include <attune/kernel/forward_hopper_layout.h>

#include <attune/part/ring.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// What the copying warp tells of a tile.
struct HopperTile {
  TileFacts facts;
  int flag;   // its place among the flags
  int there;  // 0: no tile is left
  // Rows of queries, none where the sequence is shorter than the longest.
  template <int kQueries>
  [[nodiscard]] __device__ __forceinline__ int rows() const {
    return smaller(kQueries, facts.seq.sq - facts.place.block * kQueries);
  }
};
static_assert(sizeof(HopperTile) <= kHopperTileBytes);

// What all lanes of a warp agree on, said so that the compiler knows: it then computes the descriptors of
// tiles once a warp.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(~0u, x, 0); }
__device__ __forceinline__ bool leads_warp() { return threadIdx.x % 32 == 0; }

// Blocks of keys that any row of a tile attends to. At least one: rows that attend to nothing come to their
// result by one that is masked out.
struct KeyBlocks {
  int first, end;
  template <int kKeys>
  static __device__ __forceinline__ KeyBlocks of(const TileFacts& facts, int rows) {
    const int first = uniform(facts.sides.begin(0) / kKeys);
    const int end = uniform((facts.sides.end(rows - 1) + kKeys - 1) / kKeys);
    return first < end ? KeyBlocks{first, end} : KeyBlocks{0, 1};
  }

  // Those that all rows of this warp attend to all of.
  template <typename W>
  static __device__ __forceinline__ KeyBlocks covered(const TileFacts& facts, int rows) {
    const int first = W::first_row(), last = smaller(first + W::kWarpRows, rows) - 1;
    return {uniform((facts.sides.begin(last) + W::kKeys - 1) / W::kKeys),
            uniform(facts.sides.end(first) / W::kKeys)};
  }
};

template <HopperSpec kSpec>
struct HopperRings {
  static constexpr HopperShared kShared = forward_hopper_shared(kSpec);
  using QueryRing = Ring<kShared.query_stages>;
  using KeyRing = Ring<kSpec.stages>;

  QueryRing q;  // its turns are tiles
  KeyRing k, v;
  unsigned char* tiles;

  __device__ __forceinline__ HopperRings(u32 memory, unsigned char* shared)
      : q{memory, memory + kShared.barriers, kShared.query_bytes},
        k{memory + kShared.k, q.barriers + QueryRing::kBarrierBytes, kShared.key_bytes},
        v{memory + kShared.v, k.barriers + KeyRing::kBarrierBytes, kShared.value_bytes},
        tiles(shared + kShared.tiles) {}

  // By one thread, before a block's barrier.
  __device__ __forceinline__ void init() const {
    constexpr int kReaders = consumers_of(kSpec) * 4;
    q.init(kReaders);
    k.init(kReaders);
    v.init(kReaders);
    mbarrier_init_fence();
  }

  // Complete once Q's turn is full.
  [[nodiscard]] __device__ __forceinline__ HopperTile& tile(u32 turn) const {
    return *reinterpret_cast<HopperTile*>(tiles + turn % kHopperTiles * kHopperTileBytes);
  }
};

}  // namespace attune::kernel
