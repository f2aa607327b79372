// What the two sides of the Hopper kernels share: tiles, told of in turn by the warp that finds them, and the
// rings of Q, K and V.
#pragma once

#include <attune/kernel/forward_hopper_layout.h>

#include <attune/part/ring.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// Blocks of keys [first, end).
struct KeyBlocks {
  int first, end;

  // Those that any of the first `rows` rows of a tile attends to. At least one: rows that attend to nothing
  // come to their result by one that is masked out.
  template <int kKeys>
  static __device__ __forceinline__ KeyBlocks of(const MaskSides& sides, int rows) {
    const int first = sides.begin(0) / kKeys;
    const int end = (sides.end(rows - 1) + kKeys - 1) / kKeys;
    return first < end ? KeyBlocks{first, end} : KeyBlocks{0, 1};
  }

  // Those that all of 16 rows attend to all of.
  template <int kKeys>
  static __device__ __forceinline__ KeyBlocks covered(const MaskSides& sides, int row) {
    return {(sides.begin(row + 15) + kKeys - 1) / kKeys, sides.end(row) / kKeys};
  }
};

// What is told of a tile. Behind it come, for each warp that computes, the blocks that its rows cover,
// counted from the tile's first.
struct HopperTile {
  TileFacts facts;
  int flag;           // its place among the flags
  int there;          // 0: no tile is left
  int rows;           // of queries; none where the sequence is shorter than the longest
  int first, blocks;  // of keys
  int last_rows;      // of the last block, that belong to the sequence
  [[nodiscard]] __device__ __forceinline__ bool has_rows() const { return there != 0 && rows != 0; }
};
static_assert(sizeof(HopperTile) <= kHopperTileBytes);

// What all lanes of a warp agree on, said so that the compiler knows: it then computes the descriptors of
// tiles once a warp.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(~0u, x, 0); }
__device__ __forceinline__ bool leads_warp() { return threadIdx.x % 32 == 0; }

template <HopperSpec kSpec>
struct HopperRings {
  static constexpr HopperShared kShared = forward_hopper_shared(kSpec);
  using QueryRing = Ring<kShared.query_stages>;
  using KeyRing = Ring<kSpec.stages>;
  static constexpr int kTileBytes = hopper_tile_bytes(kSpec);

  QueryRing q;  // its turns are tiles
  KeyRing k, v;
  u32 told;  // barriers
  u32 done;  // a barrier of all warps that compute
  unsigned char* tiles;

  __device__ __forceinline__ HopperRings(u32 memory, unsigned char* shared)
      : q{memory, memory + kShared.barriers, kShared.query_bytes},
        k{memory + kShared.k, q.barriers + QueryRing::kBarrierBytes, kShared.key_bytes},
        v{memory + kShared.v, k.barriers + KeyRing::kBarrierBytes, kShared.value_bytes},
        told(v.barriers + KeyRing::kBarrierBytes),
        done(told + kHopperTiles * 8),
        tiles(shared + kShared.tiles) {}

  // By one thread, before a block's barrier.
  __device__ __forceinline__ void init() const {
    constexpr int kReaders = consumers_of(kSpec) * 4;
    q.init(kReaders);
    k.init(kReaders);
    v.init(kReaders);
    for (u32 i = 0; i < kHopperTiles; ++i) mbarrier_init(told_at(i), 1);
    mbarrier_init(done, kReaders);
    mbarrier_init_fence();
  }

  // A tile, by its turn; complete once it has been told of, and so once its Q is there.
  [[nodiscard]] __device__ __forceinline__ HopperTile& tile(u32 turn) const {
    return *reinterpret_cast<HopperTile*>(tiles + turn % kHopperTiles * kTileBytes);
  }
  // Of a warp that computes.
  [[nodiscard]] __device__ __forceinline__ KeyBlocks& covered(u32 turn, int warp) const {
    unsigned char* const words = tiles + turn % kHopperTiles * kTileBytes + kHopperTileBytes;
    return reinterpret_cast<KeyBlocks*>(words)[warp];
  }
  __device__ __forceinline__ void tell(u32 turn) const { mbarrier_arrive(told_at(turn)); }
  __device__ __forceinline__ void await_told(u32 turn) const {
    mbarrier_wait(told_at(turn), turn / kHopperTiles & 1);
  }
  [[nodiscard]] __device__ __forceinline__ u32 told_at(u32 turn) const {
    return told + turn % kHopperTiles * 8;
  }
};

}  // namespace attune::kernel
