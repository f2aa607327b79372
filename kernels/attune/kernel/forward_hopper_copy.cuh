// The warp of the Hopper forward kernel that copies: it finds the tiles, tells of them, and has the copy
// engine fetch Q, K and V into their rings, as far ahead as these are free.
#pragma once

#include <attune/arch/tma.cuh>
#include <attune/part/hopper_order.cuh>
#include <attune/part/hopper_tiles.cuh>

namespace attune::kernel {

template <HopperSpec kSpec>
struct HopperCopies {
  using Rings = HopperRings<kSpec>;
  static constexpr HopperShared kShared = Rings::kShared;
  static constexpr int kPanels = panels_of(kSpec.head_dim);
  static constexpr int kValuePanels = panels_of(kSpec.value_dim);

  // A block of keys, or its values.
  struct Block {
    int row, hkv, b;
  };

  const HopperParams& p;
  const Rings& rings;
  const unsigned char* flags;
  u32 tiles = 0;  // told of
  HopperTile tile;
  u32 turn = 0;  // blocks whose keys were fetched
  Block last;    // of them, if its values are due
  bool due = false;

  __device__ __forceinline__ HopperCopies(const HopperParams& p, const Rings& rings,
                                          const unsigned char* flags)
      : p(p), rings(rings), flags(flags) {
    if (!leads_warp()) return;
    prefetch_map(p.q);
    prefetch_map(p.k);
    prefetch_map(p.v);
  }

  // All tiles of a round: in the first all, then the flagged ones.
  __device__ __forceinline__ void copy(int round) {
    TileWalk walk;
    tell(walk, round);
    while (tile.there != 0) {
      const int rows = tile.rows<kSpec.queries>();
      if (rows <= 0) {
        tell(walk, round);
        continue;
      }
      const KeyBlocks blocks = KeyBlocks::of<kSpec.keys>(tile.facts, rows);
      const int first = tile.facts.seq.k_start, hkv = tile.facts.place.h / p.f.group;
      const int b = p.f.cu_seqlens_k.data != nullptr ? 0 : tile.facts.place.b;
      bool told = false;
      for (int block = blocks.end - 1; block >= blocks.first; --block) {
        const Block now{first + block * kSpec.keys, hkv, b};
        fetch(rings.k, turn, p.k, kPanels, now);
        fetch_values();
        last = now;
        due = true;
        ++turn;
        // The next tile, as soon as this one's queries are in use and the last one's buffer is free.
        if (kShared.query_stages == 2 && !told &&
            block < larger(blocks.first + 1, blocks.end - 1)) {
          tell(walk, round);
          told = true;
        }
      }
      // Values come after the keys of the block that follows, of whichever tile.
      if (kShared.query_stages == 1) {
        fetch_values();
        tell(walk, round);
      } else if (tile.there == 0 || tile.rows<kSpec.queries>() <= 0) {
        fetch_values();
      }
    }
  }

  // Finds the next tile, or that there is none, and tells of it once its queries' buffer is free.
  __device__ __forceinline__ void tell(TileWalk& walk, int round) {
    find(walk, round);
    rings.q.await_free(tiles);
    if (leads_warp()) {
      rings.tile(tiles) = tile;
      const u32 full = rings.q.full(tiles), to = rings.q.tile(tiles);
      if (tile.there == 0 || tile.rows<kSpec.queries>() <= 0) {
        mbarrier_arrive(full);
      } else {
        const TilePlace& place = tile.facts.place;
        mbarrier_expect(full, kShared.query_bytes);
        for (int panel = 0; panel < kPanels; ++panel) {
          load_box(to + panel * (kSpec.queries * kPanelBytes), p.q, full, panel * kPanelColumns,
                   place.h, tile.facts.seq.q_start + place.block * kSpec.queries,
                   p.f.cu_seqlens_q.data != nullptr ? 0 : place.b);
        }
      }
    }
    ++tiles;
  }

  __device__ __forceinline__ void find(TileWalk& walk, int round) {
    tile.there = 0;
    for (bool here; tile.there == 0 && walk.next(p, tile.facts.place, here);) {
      tile.flag = static_cast<int>((walk.step - 1) % kTileFlags);
      tile.there = here && (round == 0 || flags[tile.flag] != 0);
    }
    if (tile.there == 0) return;
    const TilePlace place = tile.facts.place;
    const Sequence seq = sequence_of(p.f, place.b);
    tile.facts = {place, seq, MaskSides(p.f, seq, place.block * kSpec.queries), nullptr, nullptr};
  }

  __device__ __forceinline__ void fetch_values() {
    if (due) fetch(rings.v, turn - 1, p.v, kValuePanels, last);
    due = false;
  }

  template <typename R>
  __device__ __forceinline__ void fetch(const R& ring, u32 turn, const TensorMap& map, int panels,
                                        const Block& from) const {
    if (!leads_warp()) return;
    const u32 to = ring.tile(turn), full = ring.fill(turn);
    for (int panel = 0; panel < panels; ++panel) {
      load_box(to + panel * (kSpec.keys * kPanelBytes), map, full, panel * kPanelColumns, from.hkv,
               from.row, from.b);
    }
  }
};

}  // namespace attune::kernel
