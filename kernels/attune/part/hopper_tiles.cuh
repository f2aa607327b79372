// What the two sides of the Hopper kernels share: tiles, told of in turn by the warp that finds them, and the
// rings of Q, K and V.
#pragma once

#include <attune/kernel/forward_hopper_layout.h>

#include <attune/arch/cluster.cuh>
#include <attune/part/ring.cuh>
#include <attune/part/tile_order.cuh>
#include <attune/part/tile_scales.cuh>
#include <attune/part/uniform.cuh>

namespace attune::kernel {

// Blocks of keys [first, end).
struct KeyBlocks {
  int first, end;

  [[nodiscard]] __device__ __forceinline__ bool has(int block) const {
    return first <= block && block < end;
  }

  // Those that any of the first `rows` rows of a tile attends to. At least one: rows that attend to nothing
  // come to their result by one that is masked out.
  template <int kKeys, typename Sides>
  static __device__ __forceinline__ KeyBlocks of(const Sides& sides, int rows) {
    const int first = sides.begin(0) / kKeys;
    const int end = (sides.end(rows - 1) + kKeys - 1) / kKeys;
    return first < end ? KeyBlocks{first, end} : KeyBlocks{0, 1};
  }
};

// What the 64 rows of a warpgroup make of a tile's blocks, which go from the last to the first. Known for all
// of them alike, since four warps issue a product together, from one place in the code (PTX ISA, ".aligned").
struct GroupBlocks {
  KeyBlocks covered;   // halves of blocks that all rows attend to all of, from the tile's first on
  KeyBlocks attended;  // halves that any row attends to some of
  int refer_at;  // a block whose first key all rows attend to, none to what comes after it; or below 0
  int met;       // once this one is done, each row that attends to any key has met one; or below 0

  // Of the blocks `all` of a tile. Where references follow maxima throughout, neither block is given.
  template <int kKeys, typename Sides>
  static __device__ __forceinline__ GroupBlocks of(const Sides& sides, int row,
                                                   const KeyBlocks& all, bool follow) {
    constexpr int kHalf = kKeys / 2, kLast = kGroupRows - 1;
    const int first = sides.begin(row), all_from = sides.begin(row + kLast);
    const int all_end = sides.end(row), end = sides.end(row + kLast);
    const int from = all.first * 2, last = smaller((end - 1) / kKeys, all.end - 1);
    const bool refers = last >= all.first && all_from <= last * kKeys && last * kKeys < all_end;
    const int met = all_end > 0 ? smaller((all_end - 1) / kKeys, all.end - 1) - all.first : -1;
    return {{larger((all_from + kHalf - 1) / kHalf - from, 0), all_end / kHalf - from},
            {first / kHalf - from, (end + kHalf - 1) / kHalf - from},
            follow || !refers ? -1 : last - all.first,
            follow ? -1 : met};
  }

  // ALiBi raises scores by `slope` powers of two a key on the way to a row's own place among keys, the first row's being
  // `place`. Where they could outgrow a reference far behind it, references follow maxima until all have been there.
  template <int kKeys>
  __device__ __forceinline__ void follow_slope(const KeyBlocks& all, int place, float slope) {
    constexpr float kMostGrowth = 40.0f;
    const float way = static_cast<float>(all.end) * kKeys - static_cast<float>(place);
    if (slope >= 0.0f && slope * fmaxf(way, kKeys) <= kMostGrowth) return;
    refer_at = -1;
    const int there = clamp(place / kKeys, all.first, all.end - 1) - all.first;
    met = slope < 0.0f ? -1 : smaller(met, there);
  }

  // The first of the blocks before `left` that are covered without a gap; behind it where there is none.
  [[nodiscard]] __device__ __forceinline__ int covered_from(int left) const {
    return 2 * left <= covered.end ? (covered.first + 1) / 2 : left;
  }
};
static_assert(sizeof(GroupBlocks) <= kGroupBlocksBytes);

// What is told of a tile. Behind it come the blocks of each warpgroup that computes.
struct HopperTile {
  TileFacts facts;
  int flag;   // its place among the flags
  int there;  // 0: no tile is left
  int round;
  // Of queries; none where no tile is left, the sequence is shorter than the longest, or no key is left for this
  // block of a cluster.
  int rows;
  int first, blocks;  // of keys
  int last_rows;      // of the last block, that belong to the sequence
  // What results need: where the first row of O lies, queries from there on, and whether the tile has rows to
  // write that belong to no query.
  alignas(16) void* o;
  int left, outside;
  [[nodiscard]] __device__ __forceinline__ bool has_rows() const { return rows != 0; }
};
static_assert(sizeof(HopperTile) <= kHopperTileBytes &&
              kHopperTileBytes % alignof(HopperTile) == 0 &&
              kGroupBlocksBytes % alignof(HopperTile) == 0);

static_assert(sizeof(TileScales) <= kTileScalesBytes);

__device__ __forceinline__ bool leads_warp() { return threadIdx.x % 32 == 0; }

template <HopperSpec kSpec>
struct HopperRings {
  static constexpr HopperShared kShared = forward_hopper_shared(kSpec);
  // Two tiles' parts lie in as many places as there is room for, so that warpgroups share places; but no barrier, for
  // one of them may be a tile ahead of another.
  using QueryRing = Ring<kShared.query_parts, false, 2 * consumers_of(kSpec)>;
  using KeyRing = Ring<kSpec.stages, kSpec.mates>;
  static constexpr int kTileBytes = hopper_tile_bytes(kSpec);

  QueryRing q;  // of each warpgroup's queries, in turn
  KeyRing k, v, bias;
  u32 told;  // barriers
  u32 done;  // a barrier of all warps that compute
  unsigned char* tiles;
  u32 mate = 0;  // what to add to an address of this block's to reach its mate's

  __device__ __forceinline__ HopperRings(u32 memory, unsigned char* shared)
      : q{memory, memory + kShared.barriers, kShared.query_bytes},
        k{memory + kShared.k, q.barriers + QueryRing::kBarrierBytes, kShared.key_bytes},
        v{memory + kShared.v, k.barriers + KeyRing::kBarrierBytes, kShared.value_bytes,
          kShared.value_stride},
        bias{memory + kShared.bias, v.barriers + KeyRing::kBarrierBytes, kShared.bias_bytes},
        told(bias.barriers + KeyRing::kBarrierBytes),
        done(told + kHopperTiles * 8),
        tiles(shared + kShared.tiles) {
    if constexpr (kSpec.mates) {
      mate = cluster_address(memory, cluster_rank() ^ 1) - memory;
      k.mate = k.barriers + mate;
      v.mate = v.barriers + mate;
    }
  }

  // By one thread, before a block's barrier.
  __device__ __forceinline__ void init() const {
    constexpr int kReaders = consumers_of(kSpec) * (kSpec.mates ? 8 : 4);
    q.init(4);
    k.init(kReaders);
    v.init(kReaders, is_eighths(kSpec) ? kTransposers : 1);
    if constexpr (kSpec.bias) bias.init(kReaders);
    if constexpr (is_eighths(kSpec)) arrived_values().init(kTransposers);
    for (u32 i = 0; i < kHopperTiles; ++i) mbarrier_init(told_at(i), 1);
    mbarrier_init(done, kReaders);
    mbarrier_init_fence();
  }

  // V of eighths as it comes, where others have a bias.
  [[nodiscard]] __device__ __forceinline__ const KeyRing& arrived_values() const { return bias; }

  // The turn of a warpgroup's queries of a tile.
  static __device__ __forceinline__ u32 part(u32 tile, int group) {
    return tile * consumers_of(kSpec) + group;
  }

  // Of a later round: of each tile, by its place, and behind them of any.
  [[nodiscard]] __device__ __forceinline__ unsigned char* flags(int round) const {
    return tiles + (kShared.flags - kShared.tiles) + (round - 1) * kTileFlagsBytes;
  }
  __device__ __forceinline__ void flag(int round, const HopperTile& tile) const {
    unsigned char* const all = flags(round);
    all[tile.flag] = all[kTileFlags] = 1;
    if constexpr (kSpec.mates) {  // both walk the same tiles again
      const u32 there = shared_address(all) + mate;
      store_cluster(there + tile.flag, 1);
      store_cluster(there + kTileFlags, 1);
    }
  }
  [[nodiscard]] __device__ __forceinline__ bool any_flag(int round) const {
    return flags(round)[kTileFlags] != 0;
  }

  // A tile, by its turn; complete once it has been told of, and so once its Q is there.
  [[nodiscard]] __device__ __forceinline__ HopperTile& tile(u32 turn) const {
    return *reinterpret_cast<HopperTile*>(tiles + turn % kHopperTiles * kTileBytes);
  }
  // Of a warpgroup that computes.
  [[nodiscard]] __device__ __forceinline__ GroupBlocks& blocks(u32 turn, int group) const {
    unsigned char* const from = tiles + turn % kHopperTiles * kTileBytes + kHopperTileBytes;
    return *reinterpret_cast<GroupBlocks*>(from + group * kGroupBlocksBytes);
  }
  // Of eighths.
  [[nodiscard]] __device__ __forceinline__ TileScales& scales(u32 turn) const {
    constexpr int kBehind = kHopperTileBytes + consumers_of(kSpec) * kGroupBlocksBytes;
    return *reinterpret_cast<TileScales*>(tiles + turn % kHopperTiles * kTileBytes + kBehind);
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
