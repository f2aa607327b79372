// The warps of the Hopper forward kernel that copy. One finds the tiles, tells of them and has their queries
// fetched; others have keys, values and the bias fetched, each as far ahead as its ring is free. Of eighths another
// transposes the values.
#pragma once

#include <attune/arch/tma.cuh>
#include <attune/part/element.cuh>
#include <attune/part/hopper_order.cuh>
#include <attune/part/hopper_tiles.cuh>
#include <attune/part/key_shares.cuh>
#include <attune/part/packed_rows.cuh>
#include <attune/part/power_terms.cuh>
#include <attune/part/shared_tile.cuh>
#include <attune/part/transpose_values.cuh>

namespace attune::kernel {

template <HopperSpec kSpec>
struct HopperWalk : TileWalk<kSpec.mates> {};
template <HopperSpec kSpec>
requires(kSpec.split) struct HopperWalk<kSpec> : ClusterWalk {
};

template <HopperSpec kSpec>
struct HopperQueries {
  using Rings = HopperRings<kSpec>;
  using Map = TileRows<kSpec.split>;
  const HopperParams& p;
  const Rings& rings;
  u32 turn = 0;  // tiles told of

  // All tiles of this block of threads that the round has, to the word that none is left.
  __device__ __forceinline__ void copy(int round) {
    HopperWalk<kSpec> walk;
    bool there;
    do {
      __syncwarp();  // the first lane works alone; others that ran ahead would take its instructions' turns
      TilePlace place;
      u32 flag = 0;
      there = false;
      for (bool here; !there && walk.next(p, place, here);) {
        flag = (walk.step - 1) % kTileFlags;
        there = here && (round == kFirstRound || rings.flags(round)[flag] != 0);
      }
      if (leads_warp()) {
        rings.tile(turn).flag = static_cast<int>(flag);
        rings.tile(turn).there = there;
        rings.tile(turn).rows = 0;
        rings.tile(turn).round = round;
      }
      if (there) tell_of(place);
      if (leads_warp()) {
        rings.tell(turn);
        fetch(rings.tile(turn));
      }
      ++turn;
    } while (there);
  }

  // By the first lane, which arrives at barriers.
  __device__ __forceinline__ void tell_of(const TilePlace& place) const {
    HopperTile& tile = rings.tile(turn);
    const Sequence seq = sequence_of(p.f, place.b);
    const Map map(p.f);
    const int queries = map.queries(kSpec.queries);
    const MaskSides sides_of_queries(p.f, seq, place.block * queries);
    if (leads_warp()) {
      tile.facts.place = place;
      tile.facts.seq = seq;
      tile.facts.sides = sides_of_queries;
    }
    const auto sides = sides_of_rows<kSpec.split>(p.f, sides_of_queries);
    int rows = map.rows(larger(smaller(queries, seq.sq - place.block * queries), 0));
    KeyBlocks all = KeyBlocks::of<kSpec.keys>(sides, rows);
    if constexpr (kSpec.split) {
      all = KeyShares(all, cluster_blocks()).of(all, cluster_rank());
      if (all.first == all.end) rows = 0;
    }
    if (leads_warp()) {
      tile.rows = rows;
      tile.o = QueryRows<typename Elements<output_of(kSpec.element)>::Bits>(
          p.f.o, place.b, seq.q_start, place.h)(place.block * queries);
      tile.left = seq.sq - place.block * queries;
      tile.outside = seq.tail > 0 || (p.f.lse.data != nullptr && p.f.lse.padded != 0);
      tile.first = all.first;
      tile.blocks = all.end - all.first;
      const bool goes_on = p.f.cu_seqlens_k.data != nullptr || p.f.key_lengths.data != nullptr ||
                           p.f.page_table.data != nullptr;
      tile.last_rows = goes_on ? seq.sk - (all.end - 1) * kSpec.keys : kSpec.keys;
      if constexpr (is_eighths(kSpec)) {
        // Without a sequence there is no scale either.
        if (rows > 0) rings.scales(turn) = scales_of(p, place.b, place.h);
      }
    }
    if (!leads_warp()) return;
#pragma unroll 1
    for (int group = 0; group < consumers_of(kSpec); ++group) {
      const int row = group * kGroupRows;
      GroupBlocks blocks = GroupBlocks::of<kSpec.keys>(sides, row, all, tile.round != kFirstRound);
      if constexpr (kSpec.general) {
        const PowerTerms terms(p.f, seq, place.b, place.h);
        const int first = place.block * kSpec.queries + row + terms.shift;
        blocks.template follow_slope<kSpec.keys>(all, first, terms.slope);
      }
      rings.blocks(turn, group) = blocks;
    }
  }

  __device__ __forceinline__ void fetch(const HopperTile& tile) const {
    const TilePlace& place = tile.facts.place;
    const Map map(p.f);
    const int row = tile.facts.seq.q_start + place.block * map.queries(kSpec.queries);
    const int b = p.f.cu_seqlens_q.data != nullptr ? 0 : place.b;
#pragma unroll 1
    for (int group = 0; group < consumers_of(kSpec); ++group) {
      const u32 part = Rings::part(turn, group), full = rings.q.full(part);
      rings.q.await_free(part);
      if (!tile.has_rows() || tile.round == kExactRound) {
        mbarrier_arrive(full);
        continue;
      }
      mbarrier_expect(full, Rings::kShared.query_bytes);
      for (int panel = 0; panel < panels_of(kSpec.element, kSpec.head_dim); ++panel) {
        load_box(rings.q.tile(part) + panel * (kGroupRows * kPanelBytes), p.q, full,
                 panel * panel_columns(kSpec.element), place.h,
                 row + group * map.queries(kGroupRows), b);
      }
    }
  }
};

// Calls begin(tile), then fetch(its block of keys), from the last on, of all tiles to the word that none is left.
template <HopperSpec kSpec, typename Begin, typename Fetch>
__device__ __forceinline__ void for_each_block(const HopperRings<kSpec>& rings, u32& number,
                                               const Begin& begin, const Fetch& fetch) {
  for (;; ++number) {
    __syncwarp();  // the first lane works alone, and the others must not fall behind or get ahead
    rings.await_told(number);
    const HopperTile& tile = rings.tile(number);
    if (tile.there == 0) break;
    if (!tile.has_rows()) continue;
    begin(tile);
    for (int left = tile.blocks; left > 0; --left) fetch(tile, left - 1);
  }
  ++number;
}

// Blocks of keys, or of values. One piece of code for both warps: tiles' ends wait for instructions as it is.
template <HopperSpec kSpec>
struct HopperBlocks {
  using Rings = HopperRings<kSpec>;
  // The rows of a block that a lane fetches.
  struct Rows {
    int row, hkv, b;  // b: a sequence or a page
  };

  const HopperParams& p;
  const Rings& rings;
  typename Rings::KeyRing ring;
  const TensorMap* map;
  int panels;
  u32 tile = 0, turn = 0;  // tiles seen; blocks fetched

  __device__ __forceinline__ void copy(int) {
    copy_each([](const HopperTile&, int) {});
  }
  // Calls after(tile, block) when it has been asked for.
  template <typename After>
  __device__ __forceinline__ void copy_each(const After& after) {
    Rows rows;
    const auto begin = [&](const HopperTile& here) {
      const TileFacts& facts = here.facts;
      rows = {facts.seq.k_start + (here.first + here.blocks) * kSpec.keys,
              facts.place.h / p.f.group, p.f.cu_seqlens_k.data != nullptr ? 0 : facts.place.b};
    };
    for_each_block<kSpec>(rings, tile, begin, [&](const HopperTile& here, int block) {
      rows.row -= kSpec.keys;
      fetch(rows, here.facts.seq.sk);
      after(here, block);
      ++turn;
    });
  }

  __device__ __forceinline__ void fetch(const Rows& rows, int sk) const {
    const u32 to = ring.tile(turn);
    if constexpr (kSpec.mates) {
      if (!leads_warp()) return;
      ring.fill(turn);
      load_half(to, ring.full(turn), rows);
      return;
    }
    if (p.f.page_table.data == nullptr) {
      if (!leads_warp()) return;
      ring.fill(turn);
      load(to, ring.full(turn), rows);
      return;
    }
    const int first = static_cast<int>(threadIdx.x % 32) * p.box_keys;
    const bool takes_part = first < kSpec.keys;
    Rows mine{0, rows.hkv, 0};
    if (takes_part && rows.row + first < sk) mine = in_page(rows, rows.row + first);
    if (leads_warp()) ring.fill(turn);
    __syncwarp();
    if (takes_part) load(to + first * kPanelBytes, ring.full(turn), mine);
  }

  // Of a sequence's key. Those past its end, which nobody asks about, lie in the first page.
  __device__ __forceinline__ Rows in_page(const Rows& rows, int key) const {
    const Indices& table = p.f.page_table;
    const int number = key / p.f.page_size;
    const int page = table.data[rows.b * table.stride + number * table.inner_stride];
    return {key - number * p.f.page_size, rows.hkv, clamp(page, 0, p.f.pages - 1)};
  }

  // Its mate loads the other half, to the same place of both.
  __device__ __forceinline__ void load_half(u32 to, u32 full, const Rows& from) const {
    const int first = static_cast<int>(blockIdx.x % 2) * fetched_keys(kSpec);
#pragma unroll 1
    for (int panel = 0; panel < panels; ++panel) {
      load_box_twice(to + (panel * kSpec.keys + first) * kPanelBytes, *map, full,
                     panel * panel_columns(kSpec.element), from.hkv, from.row + first, from.b);
    }
  }

  __device__ __forceinline__ void load(u32 to, u32 full, const Rows& from) const {
#pragma unroll 1
    for (int panel = 0; panel < panels; ++panel) {
      load_box(to + panel * (kSpec.keys * kPanelBytes), *map, full,
               panel * panel_columns(kSpec.element), from.hkv, from.row, from.b);
    }
  }
};

template <HopperSpec kSpec>
struct HopperBias {
  using Rings = HopperRings<kSpec>;
  const HopperParams& p;
  const Rings& rings;
  u32 tile = 0, turn = 0;  // tiles seen; blocks of keys whose bias was fetched

  __device__ __forceinline__ void copy(int) {
    const auto nothing = [](const HopperTile&) {};
    for_each_block<kSpec>(rings, tile, nothing, [&](const HopperTile& here, int block) {
      if (leads_warp()) fetch(here.facts.place, (here.first + block) * kSpec.keys);
      ++turn;
    });
  }

  // Of a tile's queries and the keys from `first` on.
  __device__ __forceinline__ void fetch(const TilePlace& place, int first) const {
    rings.bias.fill(turn);
    const int h = p.f.bias.h_stride != 0 ? place.h : 0, b = p.f.bias.b_stride != 0 ? place.b : 0;
    for (int panel = 0; panel < panels_of(kSpec.element, kSpec.keys); ++panel) {
      load_box(rings.bias.tile(turn) + panel * (kSpec.queries * kPanelBytes), p.bias,
               rings.bias.full(turn), first + panel * panel_columns(kSpec.element), h,
               place.block * kSpec.queries, b);
    }
  }
};

// Values of eighths, from where they arrive to where products read them: the part of one of the warps that do so.
// What lies past the end of a sequence whose tensor goes on is somebody's, and becomes zeros: 0 times NaN is NaN.
template <HopperSpec kSpec>
struct HopperTransposer {
  using Rings = HopperRings<kSpec>;
  const Rings& rings;
  u32 warp = 0;            // of those
  u32 tile = 0, turn = 0;  // tiles seen; blocks transposed

  __device__ __forceinline__ void copy(int) {
    const auto nothing = [](const HopperTile&) {};
    for_each_block<kSpec>(rings, tile, nothing, [&](const HopperTile& here, int block) {
      transpose(rows_of(here, block));
      ++turn;
    });
  }

  // Of a block, that belong to the sequence; or more.
  static __device__ __forceinline__ int rows_of(const HopperTile& tile, int block) {
    return block + 1 == tile.blocks ? tile.last_rows : kSpec.keys;
  }

  __device__ __forceinline__ void transpose(int rows) const {
    constexpr int kKeys = kSpec.keys, kColumns = kSpec.value_dim, kWarps = kTransposers;
    const typename Rings::KeyRing& arrived = rings.arrived_values();
    const u32 from = arrived.tile(turn), to = rings.v.tile(turn);
    rings.v.await_free(turn);
    arrived.await_full(turn);
    __syncwarp();
    if (rows < kKeys) {
      transpose_values<kKeys, kColumns, kWarps, true>(from, to, warp, rows);
    } else {
      transpose_values<kKeys, kColumns, kWarps, false>(from, to, warp, rows);
    }
    fence_shared_for_engines();
    __syncwarp();
    if (leads_warp()) mbarrier_arrive(rings.v.full(turn));
    arrived.release(turn, leads_warp());
  }
};

// Has values of eighths fetched, and transposes a part of each block once the next is under way.
template <HopperSpec kSpec>
struct HopperValues {
  HopperBlocks<kSpec> blocks;
  HopperTransposer<kSpec> transposer;

  __device__ __forceinline__ void copy(int) {
    int rows = 0;  // of the block before
    const auto catch_up = [&]() {
      if (transposer.turn == blocks.turn) return;
      transposer.transpose(rows);
      ++transposer.turn;
    };
    blocks.copy_each([&](const HopperTile& here, int block) {
      catch_up();
      rows = HopperTransposer<kSpec>::rows_of(here, block);
    });
    catch_up();
  }
};

}  // namespace attune::kernel
