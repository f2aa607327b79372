// Attention forward on Hopper's own matrix products and copy engine (sm_90a).
//
// Schedule. The first warpgroup of a block copies (forward_hopper_copy.cuh). The others compute, 64 query rows
// each. Of each block of keys a warpgroup first issues S = Q K^T, then O += P V of the block before, and takes
// the softmax of S while that product is under way; so the tensor cores wait for exponentials only where all
// warpgroups are at theirs. A block of threads computes tile after tile, and their blocks of keys follow each
// other without a gap: the first S of a tile is computed beside the last O of the one before.
//
// Blocks of keys go from the last to the first: what masks and lengths cut comes first. Softmax as in
// forward_portable.cuh; tiles that have to be walked again are flagged, and come once more at the end.
//
// Shared memory: forward_hopper_layout.h. Registers of a thread: S: keys/2, P: keys/4, O: value_dim/2; at
// 128 keys and columns 160 of 232, since the copying warpgroup gives its own to the others.
#pragma once

#include <attune/arch/barrier.cuh>
#include <attune/arch/registers.cuh>
#include <attune/arch/wgmma.cuh>
#include <attune/kernel/forward_hopper_copy.cuh>
#include <attune/part/cluster_combine.cuh>
#include <attune/part/copied_bias.cuh>
#include <attune/part/exact_row.cuh>
#include <attune/part/mask.cuh>
#include <attune/part/power_terms.cuh>
#include <attune/part/quad_rows.cuh>
#include <attune/part/result.cuh>
#include <attune/part/warpgroup_shape.cuh>

namespace attune::kernel {

template <HopperSpec kSpec>
struct HopperForward {
  using E = Elements<kSpec.element>;
  using Rings = HopperRings<kSpec>;
  static constexpr bool kBf16 = kSpec.element == Element::bf16;
  static constexpr int kKeys = kSpec.keys;
  static constexpr int kConsumers = consumers_of(kSpec);
  static constexpr int kValuePanels = panels_of(kSpec.value_dim);
  static constexpr HopperShared kShared = Rings::kShared;
  using W = WarpgroupShape<kSpec.element, kSpec.queries, kKeys, kSpec.value_dim>;
  using State = Softmax<W, units_of(kSpec)>;
  static_assert(State::kWide);

  // Of a thread; together no more than the block has from its launch on.
  static constexpr int kOwnRegisters = kConsumers == 3 ? 160 : kConsumers == 1 ? 216 : 232;
  static constexpr int kCopyRegisters = kConsumers == 3 ? 32 : 40;
  static constexpr int kRegisters = 65536 / blocks_of(kSpec) / threads_of(kSpec) / 8 * 8;
  static constexpr bool kHandsRegisters = kRegisters < 256;  // else each thread has all it can
  static_assert(!kHandsRegisters ||
                kConsumers * kOwnRegisters + kCopyRegisters <= (kConsumers + 1) * kRegisters);
  // Barriers by number. Turns: one a warpgroup; cut: likewise; of all who compute.
  static constexpr int kTurn = 1, kCut = kTurn + kConsumers, kAll = kCut + kConsumers;

  struct AnyBlock {
    static constexpr bool kWhole = false;
  };
  struct WholeBlock {
    static constexpr bool kWhole = true;
  };

  static __device__ __forceinline__ void run(const HopperParams& p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    const Rings rings(shared_address(shared), shared);
    unsigned char* const flags = shared + kShared.flags;
    for (int i = threadIdx.x; i <= kTileFlags; i += threads_of(kSpec)) flags[i] = 0;
    if (threadIdx.x == 0) rings.init();
    __syncthreads();
    if (threadIdx.x < 128) {
      if constexpr (kHandsRegisters) give_registers<kCopyRegisters>();
      copy_tiles(p, rings, flags);
      if constexpr (kSpec.split) ClusterCombine<kSpec, W, kAll>::look_on();
    } else {
      if constexpr (kHandsRegisters) take_registers<kOwnRegisters>();
      compute_tiles(p.f, rings, flags);
      if constexpr (kSpec.split) ClusterCombine<kSpec, W, kAll>{p.f, rings}.run();
    }
  }

  static __device__ __forceinline__ void copy_tiles(const HopperParams& p, const Rings& rings,
                                                    const unsigned char* flags) {
    const auto copy = [&](const TensorMap& map, auto copier) {
      if (leads_warp()) prefetch_map(map);
      int round = 0;
      do copier.copy();
      while (again(rings, flags, round++, false));
    };
    const int warp = uniform(static_cast<int>(threadIdx.x) / 32);
    if (warp == 0) {
      copy(p.q, HopperQueries<kSpec>{p, rings, flags});
    } else if (warp < 3) {
      const bool keys = warp == 1;
      const TensorMap& map = keys ? p.k : p.v;
      copy(map, HopperBlocks<kSpec>{p, rings, keys ? rings.k : rings.v, &map,
                                    panels_of(keys ? kSpec.head_dim : kSpec.value_dim)});
    } else if constexpr (kSpec.bias) {
      copy(p.bias, HopperBias<kSpec>{p, rings});
    }
  }

  // Whether flagged tiles have to be walked again, when all who compute have come to the end of theirs.
  static __device__ __forceinline__ bool again(const Rings& rings, const unsigned char* flags,
                                               int round, bool computes) {
    if (round > 0) return false;
    __syncwarp();
    if (computes && leads_warp()) mbarrier_arrive(rings.done);
    mbarrier_wait(rings.done, 0);
    return flags[kTileFlags] != 0;
  }

  static __device__ __forceinline__ void compute_tiles(const ForwardParams& p, const Rings& rings,
                                                       unsigned char* flags) {
    int round = 0;
    u32 tile = 0, turn = 0;
    do {
      for (;; ++tile) {
        rings.q.await_full(tile);
        if (has_rows(rings.tile(tile))) {
          walk_tiles(p, rings, flags, round, tile, turn);
          continue;
        }
        const HopperTile& here = rings.tile(tile);
        const bool none = uniform(here.there) == 0;
        if (!none && !kSpec.split) write_outside_of(p, here.facts);
        rings.q.release(tile, leads_warp());
        if (none) break;
      }
      ++tile;
    } while (again(rings, flags, round++, true));
  }

  static __device__ __forceinline__ bool has_rows(const HopperTile& tile) {
    return uniform(tile.has_rows()) != 0;
  }

  static __device__ __forceinline__ void write_outside_of(const ForwardParams& p,
                                                          const TileFacts& facts) {
    write_outside<kSpec.element, kConsumers * 128>(p, facts.seq, facts.place, W::kQueries,
                                                   static_cast<int>(threadIdx.x) - 128);
  }

  // Results of a tile from O and the softmax's state.
  static __device__ __forceinline__ void write(const ForwardParams& p, const Rings& rings,
                                               unsigned char* flags, bool flag, u32 number,
                                               State& softmax, typename W::Values& o) {
    const HopperTile& here = rings.tile(number);
    const TileFacts& facts = here.facts;
    const TilePlace& tile = facts.place;
    const Sequence& seq = facts.seq;
    const WarpPair<W> alone(0);
    // By the thread that arrives at the barrier before flags are read.
    if (flag && alone.any(softmax.overflowed()) && leads_warp()) {
      flags[here.flag] = flags[kTileFlags] = 1;
    }
    if constexpr (kSpec.split) {
      ClusterCombine<kSpec, W, kAll>{p, rings}.leave(softmax, o);
      return;
    }
    softmax.finish(p, tile.h, alone);
    write_lse<W>(p, seq, tile, softmax);
    const u32 bad = doubtful_rows<W, !kSpec.bias>(o, softmax);
    scale_values<W>(o, softmax, kSpec.dropout ? p.dropout.keep_scale : 1.0f);
    const QueryRows<typename E::Bits> rows(p.o, tile.b, seq.q_start, tile.h);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = tile.block * kSpec.queries + thread_row<W>(0, half);
      write_row<kSpec.element>(i < seq.sq ? rows(i) : nullptr, o[0], half, p.dv);
    }
    if (alone.any(bad != 0)) {
      const u32 scratch = kShared.scratch + (threadIdx.x / 32 - 4) * kRowScratchBytes;
      exact_rows<kSpec, W>(p, facts, softmax, bad, rings.q.tiles + scratch);
    }
    write_outside_of(p, facts);
  }

  // S = Q K^T of this warpgroup; complete after a wait.
  static __device__ __forceinline__ void multiply_keys(typename W::Scores& s, u32 q, u32 k) {
    const WgmmaTile a(q, 16, 1024), b(k, 16, 1024);
#pragma unroll
    for (int step = 0; step < kSpec.head_dim / 16; ++step) {
      const int panel = step / 4, at = step % 4 * 32;
      Wgmma<kKeys>::template multiply<kBf16>(flat(s),
                                             a.at(panel * (kSpec.queries * kPanelBytes) + at),
                                             b.at(panel * (kKeys * kPanelBytes) + at), step > 0);
    }
  }

  // O += P V of this warpgroup; likewise.
  using Weights = u32[kKeys / 16][4];
  static __device__ __forceinline__ void add_values(typename W::Values& o, const Weights& p,
                                                    u32 v) {
    const WgmmaTile b(v, kKeys * kPanelBytes, 1024);
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      Wgmma<kSpec.value_dim>::template add<kBf16>(flat(o), p[step], b.at(step * 2048));
    }
  }

  // P as the left operand of O += P V.
  static __device__ __forceinline__ void pack(const typename W::Scores& p, Weights& weights) {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&tile)[4] = p[0][2 * step + i / 2];
        weights[step][i] = E::pack(tile[i % 2 * 2], tile[i % 2 * 2 + 1]);
      }
    }
  }

  // Zeros for the rows of V past the end of a sequence whose tensor goes on: they are somebody's, and 0
  // times NaN is NaN. Each warpgroup writes all of them, and so waits for itself alone.
  static __device__ __forceinline__ void cut_values(u32 v, int rows) {
    const int thread = threadIdx.x % 128;
    const u32 zeros[4] = {0, 0, 0, 0};
    for (int i = rows * 8 + thread; i < kKeys * 8; i += 128) {
#pragma unroll
      for (int panel = 0; panel < kValuePanels; ++panel) {
        store_shared(v + panel * (kKeys * kPanelBytes) + i * 16, zeros);
      }
    }
    fence_shared_for_engines();
    barrier_sync(kCut + static_cast<int>(threadIdx.x) / 128 - 1, 128);
  }

  // From tile number `tile` on all that follow each other, to the last of them.
  static __device__ __forceinline__ void walk_tiles(const ForwardParams& p, const Rings& rings,
                                                    unsigned char* flags, int round, u32& tile,
                                                    u32& turn) {
    const WarpPair<W> alone(0);
    const bool leads = opaque(static_cast<int>(threadIdx.x % 32)) == 0;
    const int group = uniform(static_cast<int>(threadIdx.x) / 128) - 1;
    const auto address = [](u32 x) { return static_cast<u32>(uniform(static_cast<int>(x))); };
    const auto fresh = [&]() { return State(p, State::kAtFirst); };
    u32 q;         // this warpgroup's queries
    int left;      // of the tile's blocks, which come last first: those after this one
    int whole_to;  // blocks are whole down to this one
    // Whether not all rows of the block's values belong to the sequence.
    const auto is_cut = [&]() {
      const HopperTile& here = rings.tile(tile);
      return left + 1 == here.blocks && here.last_rows < kKeys;
    };
    const auto enter = [&]() {
      const HopperTile& here = rings.tile(tile);
      left = here.blocks - 1;
      q = rings.q.tile(tile) + group * (64 * kPanelBytes);
    };
    // Found out while exponentials are computed: whether a turn's values and the keys of the block that comes
    // next are there.
    bool keys_are_there, values_are_there;
    const auto look_ahead = [&](u32 turn) {
      keys_are_there = rings.k.is_full(turn + 1);
      values_are_there = rings.v.is_full(turn);
    };
    typename W::Scores s;
    typename W::Values o;
    Weights weights;
    float alpha[2];  // what O is to be multiplied by, with the product that is under way
    State softmax = fresh();
    // S of a turn's block -> P. A block is whole if no mask meets it and its maxima need not be looked at; what
    // decides that, `blocks`, is of no other.
    const auto soften = [&](u32 turn, bool whole, const GroupBlocks& blocks) {
      const TileFacts& facts = rings.tile(tile).facts;
      const auto first_key = [&]() { return (rings.tile(tile).first + left) * kKeys; };
      const int row = facts.place.block * kSpec.queries + thread_row<W>(0, 0);
      if constexpr (kSpec.general) {
        const PowerTerms terms(p, facts.seq, facts.place.b, facts.place.h);
        terms.template apply<W>(s, row, first_key());
      }
      if constexpr (kSpec.bias) {
        rings.bias.await_full(turn);
        add_copied_bias<W>(s, rings.bias.tile(turn), p.scale);
        __syncwarp();
        rings.bias.release(turn, leads);
      }
      alpha[0] = alpha[1] = 1.0f;
      if (!whole) {
        const bool masked = left >= blocks.covered.end || left < blocks.covered.first;
        if (masked) {
          if constexpr (kSpec.split) {
            apply_mask<W>(s, sides_of_rows<true>(p, facts.sides), first_key());
          } else {
            apply_mask<W>(s, facts.sides, first_key());
          }
        }
        const int follows_to = round == 0 ? blocks.met : -1;
        if (kSpec.bias || left >= follows_to) {
          softmax.follow(s, alone, [&](int, int half, float by) { alpha[half] *= by; });
          if (!kSpec.bias && left == follows_to) softmax.refer_to_any();
        }
        whole_to = masked || left > follows_to ? left : blocks.covered.first;
      }
      look_ahead(turn);
      const float top = softmax.powers(s);
      if constexpr (kSpec.dropout) {
        apply_dropout<W>(s, p, facts.place.b, facts.place.h, row, first_key());
      }
      // A branch that depends on all sums: exponentials are not moved behind a wait that comes after it.
      if (alone.any(!(top <= State::kLift))) {
        const auto rescale = [&](int, int half, float by) {
          alpha[half] *= by;
          State::multiply(s, 0, half, by);
        };
        if constexpr (State::kByBlock) {
          softmax.lift_by_block(s, rescale);
        } else {
          softmax.lift(alone, rescale);
        }
        hold();
      }
    };
    const auto await_values = [&](bool cut, u32 of) {
      if (!values_are_there) rings.v.await_full(turn);
      if (cut) cut_values(rings.v.tile(turn), rings.tile(of).last_rows);
    };
    const auto await_turn = [&]() {
      if constexpr (kSpec.turns) barrier_sync(kTurn + group, 256);
    };
    const auto pass_turn = [&](int to) {
      if constexpr (kSpec.turns) barrier_arrive(kTurn + to % kConsumers, 256);
    };

    enter();
    if (group == kConsumers - 1) pass_turn(0);
    rings.k.await_full(turn);
    wgmma_fence();
    multiply_keys(s, address(q), address(rings.k.tile(turn)));
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_touch(flat(s));
    rings.k.release(turn, leads);
    if (left == 0) rings.q.release(tile, leads);
    soften(turn, false, rings.blocks(tile, group));  // O is 0, whatever it is to be multiplied by
    pack(s, weights);
    clear_fragments(o);
    // S and P of the block that comes next, perhaps of the next tile, beside O of the one before. False when
    // there is none.
    const auto step = [&](auto kind) {
      constexpr bool kWhole = decltype(kind)::kWhole;
      const bool ends = !kWhole && left == 0, cuts = !kWhole && is_cut();
      const u32 of_tile = tile;
      if (ends) {
        if constexpr (kSpec.split) return false;  // there is one tile
        rings.q.await_full(tile + 1);
        if (!has_rows(rings.tile(tile + 1))) return false;
        ++tile;
        enter();
      } else {
        --left;
      }
      const u32 queries = address(q), keys = address(rings.k.tile(turn + 1));
      const u32 values = address(rings.v.tile(turn));
      const GroupBlocks blocks = kWhole ? GroupBlocks{} : rings.blocks(tile, group);
      if (!keys_are_there) rings.k.await_full(turn + 1);
      await_turn();
      wgmma_touch(flat(s));
      wgmma_fence();
      multiply_keys(s, queries, keys);
      wgmma_commit();
      await_values(cuts, of_tile);
      wgmma_touch(flat(o));
      wgmma_fence();
      add_values(o, weights, values);
      wgmma_commit();
      pass_turn(group + 1);
      wgmma_wait<1>();
      wgmma_touch(flat(s));
      rings.k.release(turn + 1, leads);
      if (left == 0) rings.q.release(tile, leads);
      State before = softmax;
      if (ends) softmax = fresh();
      soften(turn + 1, kWhole, blocks);
      wgmma_wait<0>();
      wgmma_touch(flat(o));
      rings.v.release(turn++, leads);
      pack(s, weights);
      if (ends) {
        write(p, rings, flags, round == 0, of_tile, before, o);
        clear_fragments(o);
      } else if (alone.any(alpha[0] != 1.0f || alpha[1] != 1.0f)) {
        State::multiply(o, 0, 0, alpha[0]);
        State::multiply(o, 0, 1, alpha[1]);
      }
      return true;
    };
#pragma unroll 1
    while (step(AnyBlock{})) {
      // Code of their own for most blocks: what the others need would stand in the way of instructions.
      if constexpr (kSpec.bias) {
        // A bias may all but hide the first keys that a row meets. All warps have to agree.
        if (left > whole_to && barrier_or(kCut + group, 128, softmax.refers_low())) continue;
      }
#pragma unroll 1
      while (left > whole_to) step(WholeBlock{});
    }
    if (group == 0) await_turn();  // what was passed once too often
    await_values(is_cut(), tile);
    wgmma_touch(flat(o));
    wgmma_fence();
    add_values(o, weights, address(rings.v.tile(turn)));
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_touch(flat(o));
    rings.v.release(turn++, leads);
    write(p, rings, flags, round == 0, tile, softmax, o);
  }
};

template <HopperSpec kSpec>
__device__ __forceinline__ void forward_hopper(const HopperParams& params) {
  HopperForward<kSpec>::run(params);
}

}  // namespace attune::kernel
