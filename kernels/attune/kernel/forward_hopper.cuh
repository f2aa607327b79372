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
// Shared memory: forward_hopper_layout.h. Registers of a thread: S: keys/2, P: keys/4 (of 8 bits keys/8),
// O: value_dim/2; at 128 keys and columns 160 of 232, since the copying warpgroup gives its own to the others.
#pragma once

#include <attune/arch/barrier.cuh>
#include <attune/arch/registers.cuh>
#include <attune/kernel/forward_hopper_copy.cuh>
#include <attune/part/cluster_combine.cuh>
#include <attune/part/copied_bias.cuh>
#include <attune/part/exact_row.cuh>
#include <attune/part/hopper_products.cuh>
#include <attune/part/kept_bytes.cuh>
#include <attune/part/mask.cuh>
#include <attune/part/power_terms.cuh>
#include <attune/part/quad_rows.cuh>
#include <attune/part/result.cuh>

namespace attune::kernel {

template <HopperSpec kSpec>
struct HopperForward {
  using E = Elements<kSpec.element>;
  using Out = Elements<output_of(kSpec.element)>;
  using Rings = HopperRings<kSpec>;
  static constexpr bool kEighths = is_eighths(kSpec);
  static constexpr int kKeys = kSpec.keys;
  static constexpr int kConsumers = consumers_of(kSpec);
  static constexpr int kValuePanels = panels_of(kSpec.element, kSpec.value_dim);
  static constexpr HopperShared kShared = Rings::kShared;
  using Products = HopperProducts<kSpec>;
  using W = typename Products::W;
  using State = Softmax<W, units_of(kSpec)>;
  using Values = typename Products::Values;
  using Kept = typename KeptOf<W, kSpec.dropout, kSpec.bytes>::Type;
  static_assert(State::kWide || State::kFollows);
  // What powers() returns at most where references may stay. Weights of bf16 have the range of sums.
  static constexpr float kMostTop = State::kByBlock ? State::kLift : State::kMostSum;

  // Of a thread; together no more than the block has from its launch on.
  static constexpr int kOwnRegisters = kConsumers == 3   ? 160
                                       : kConsumers == 1 ? 216
                                       : kEighths        ? 224
                                                         : 232;
  static constexpr int kCopyRegisters = kConsumers == 3 ? 32 : kEighths ? 56 : 40;
  static constexpr int kRegisters = 65536 / blocks_of(kSpec) / threads_of(kSpec) / 8 * 8;
  static constexpr bool kHandsRegisters = kRegisters < 256;  // else each thread has all it can
  static_assert(!kHandsRegisters ||
                kConsumers * kOwnRegisters + kCopyRegisters <= (kConsumers + 1) * kRegisters);
  // Barriers by number. Turns: one a warpgroup; of its own: likewise; of all who compute.
  static constexpr int kTurn = 1, kOwn = kTurn + kConsumers, kAll = kOwn + kConsumers;

  static __device__ __forceinline__ void run(const HopperParams& p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    const Rings rings(shared_address(shared), shared);
    for (int i = threadIdx.x; i < (kRounds - 1) * kTileFlagsBytes; i += threads_of(kSpec)) {
      rings.flags(kCarefulRound)[i] = 0;
    }
    if constexpr (!kSpec.lse) write_ones(rings);
    if (threadIdx.x == 0) rings.init();
    // Nothing of the problem's has been touched so far: all that goes on beside the end of the kernel before.
    let_followers_begin();
    await_predecessors();
    if constexpr (kSpec.mates) {
      cluster_sync();
    } else {
      __syncthreads();
    }
    if (threadIdx.x < 128) {
      if constexpr (kHandsRegisters) give_registers<kCopyRegisters>();
      copy_tiles(p, rings);
      if constexpr (kSpec.split) ClusterCombine<kSpec, W, kAll, kOwn>::look_on();
    } else {
      if constexpr (kHandsRegisters) take_registers<kOwnRegisters>();
      compute_tiles(p.f, rings);
      if constexpr (kSpec.split) ClusterCombine<kSpec, W, kAll, kOwn>{p.f, rings}.run();
    }
  }

  // Behind each tile of V, for all of the kernel's time.
  static __device__ __forceinline__ void write_ones(const Rings& rings) {
    const u32 two = E::pack(1.0f, 1.0f);
    const u32 ones[4] = {two, two, two, two};
    for (int i = threadIdx.x; i < kKeys * 8; i += threads_of(kSpec)) {
#pragma unroll
      for (int stage = 0; stage < kSpec.stages; ++stage) {
        store_shared(rings.v.tile(stage) + kShared.value_bytes + i * 16, ones);
      }
    }
    fence_shared_for_engines();
  }

  static __device__ __forceinline__ void copy_tiles(const HopperParams& p, const Rings& rings) {
    const auto copy = [&](const TensorMap& map, int rounds, auto copier) {
      if (leads_warp()) prefetch_map(map);
      for (int round = 0; round < rounds; round = round_after(rings, round, false)) {
        copier.copy(round);
      }
    };
    const int warp = uniform(static_cast<int>(threadIdx.x) / 32);
    if (warp == 0) {
      copy(p.q, kRounds, HopperQueries<kSpec>{p, rings});
    } else if (warp < (kEighths ? 2 : 3)) {
      const bool keys = warp == 1;
      const TensorMap& map = keys ? p.k : p.v;
      copy(map, kExactRound,
           HopperBlocks<kSpec>{p, rings, keys ? rings.k : rings.v, &map,
                               panels_of(kSpec.element, keys ? kSpec.head_dim : kSpec.value_dim)});
    } else if constexpr (kSpec.bias) {
      copy(p.bias, kExactRound, HopperBias<kSpec>{p, rings});
    } else if constexpr (kEighths) {
      if (warp == 2) {
        const HopperBlocks<kSpec> values{p, rings, rings.arrived_values(), &p.v,
                                         panels_of(kSpec.element, kSpec.value_dim)};
        copy(p.v, kExactRound, HopperValues<kSpec>{values, {rings, 1}});
      } else {
        copy(p.v, kExactRound, HopperTransposer<kSpec>{rings});
      }
    }
  }

  // The next round that has tiles, or kRounds, when all who compute have come to the end of this one.
  static __device__ __forceinline__ int round_after(const Rings& rings, int round, bool computes) {
    if (round == kExactRound) return kRounds;
    __syncwarp();
    // It has a phase for each of the two rounds. Mates end them together: nobody reaches for who has gone, and both
    // have the same flags.
    const u32 phase = static_cast<u32>(round);
    if constexpr (kSpec.mates) {
      if (computes && leads_warp()) {
        mbarrier_arrive(rings.done);
        mbarrier_release_there(rings.done + rings.mate);
      }
      mbarrier_wait_cluster(rings.done, phase);
    } else {
      if (computes && leads_warp()) mbarrier_arrive(rings.done);
      mbarrier_wait(rings.done, phase);
    }
    if (round == kFirstRound && rings.any_flag(kCarefulRound)) return kCarefulRound;
    return rings.any_flag(kExactRound) ? kExactRound : kRounds;
  }

  static __device__ __forceinline__ void compute_tiles(const ForwardParams& p, const Rings& rings) {
    u32 tile = 0, turn = 0;
    for (;; ++tile) {
      rings.q.await_full(Rings::part(tile, own_group()));
      const HopperTile& here = rings.tile(tile);
      const int round = uniform(here.round);
      const bool has_some = has_rows(here), none = uniform(here.there) == 0;
      if (has_some && round != kExactRound) {
        walk_tiles(p, rings, tile, turn);
        continue;
      }
      if (has_some) {
        if constexpr (kEighths) {
          write_spoiled_rows<kSpec, W>(p, here.facts, rings.scales(tile));
        } else {
          write_spoiled_rows<kSpec, W>(p, here.facts);
        }
      }
      if (!none && round == kFirstRound && !kSpec.split) write_outside_of(p, here.facts);
      rings.q.release(Rings::part(tile, own_group()), leads_warp());
      if (none && round_after(rings, round, true) == kRounds) break;
    }
  }

  static __device__ __forceinline__ int own_group() {
    return uniform(static_cast<int>(threadIdx.x) / 128) - 1;
  }

  static __device__ __forceinline__ bool has_rows(const HopperTile& tile) {
    return uniform(tile.has_rows()) != 0;
  }

  static __device__ __forceinline__ void write_outside_of(const ForwardParams& p,
                                                          const TileFacts& facts) {
    write_outside<output_of(kSpec.element), kConsumers * 128>(
        p, facts.seq, facts.place, W::kQueries, static_cast<int>(threadIdx.x) - 128);
  }

  // Results of a tile from O and the softmax's state.
  static __device__ __forceinline__ void write(const ForwardParams& p, const Rings& rings,
                                               u32 number, State& softmax, const Values& o) {
    const HopperTile& here = rings.tile(number);
    const TileFacts& facts = here.facts;
    const TilePlace& tile = facts.place;
    const WarpPair<W> alone(0);
    if constexpr (kSpec.lse) {
      softmax.sum_up(alone);
    } else {
      softmax.l[0][0] = o[0][W::kWidthTiles][0];
      softmax.l[0][1] = o[0][W::kWidthTiles][2];
    }
    // Flags are written by the thread that arrives at the barrier before they are read.
    if (alone.any(softmax.overflowed()) && here.round == kFirstRound && leads_warp()) {
      rings.flag(kCarefulRound, here);
    }
    if constexpr (kSpec.split) {
      ClusterCombine<kSpec, W, kAll, kOwn>{p, rings}.leave(softmax, o);
      return;
    }
    softmax.template finish<kSpec.lse>(p, tile.h);
    if constexpr (kSpec.lse) write_lse<W>(p, facts.seq, tile, softmax);
    float factor = kSpec.dropout ? p.dropout.keep_scale : 1.0f;
    if constexpr (kEighths) factor = rings.scales(number).values;
    auto* const rows = static_cast<typename Out::Bits*>(here.o);
    const int left = here.left;
    bool spoiled = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = thread_row<W>(0, half);
      const bool finite = write_row<output_of(kSpec.element), W::kWidthTiles>(
          row < left ? rows + row * p.o.s_stride : nullptr, o[0], half,
          softmax.inverse[0][half] * factor, p.dv);
      spoiled |= !finite && (kSpec.bias || softmax.l[0][half] * 0.0f == 0.0f);
    }
    if (alone.any(spoiled) && leads_warp()) rings.flag(kExactRound, here);
    if (here.outside != 0) write_outside_of(p, facts);
  }

  // Column tiles of the first half of a block's keys.
  static constexpr int kHalfTiles = W::kKeyTiles / 2;
  static_assert(W::kKeyTiles % 2 == 0);
  // Which halves of a block of keys some row attends to, and so have weights.
  enum class Asked { all, lower, none };
  // Whether the others are left out: ptxas spills where registers are few, and where maxima are taken, as of
  // each block's weights of f16, all scores are looked at.
  static constexpr bool kLeavesOut =
      !kSpec.split && !State::kByBlock && !State::kFollows &&
      kOwnRegisters - kKeys * 3 / 4 - product_columns(kSpec) / 2 >= 48;

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
    barrier_sync(kOwn + static_cast<int>(threadIdx.x) / 128 - 1, 128);
  }

  // What a warpgroup does with tile number `tile` and all that follow it, to the last of them.
  struct Walk {
    const ForwardParams& p;
    const Rings& rings;
    u32& tile;
    u32& turn;  // blocks of keys so far
    const bool leads = opaque(static_cast<int>(threadIdx.x % 32)) == 0;
    const int group = own_group();
    int left = 0;      // of the tile's blocks, which come last first: those after this one
    int whole_to = 0;  // blocks are whole down to this one: no mask meets them, and m stays
    // What is known of the next turn, in bits of one register: its keys are there, its values are there; the
    // block whose P is known is its tile's first.
    enum Fact : u32 { kKeysThere = 1, kValuesThere = 2, kFresh = 4 };
    u32 facts = kFresh;
    Values o;
    typename Products::Weights weights;
    State softmax = state();
    // Whether the last block's weights moved references, and what O is to be multiplied by then.
    bool moved = false;
    float alpha[2];
    Kept kept;

    // What dropout keeps of the block that `left` is of: the longest of a step's parts, and it needs no scores.
    __device__ __forceinline__ void draw() {
      const TilePlace& place = here().facts.place;
      kept.draw(p, place.b, place.h, row(), first_key());
    }

    // Before a tile's first block.
    [[nodiscard]] __device__ __forceinline__ State state() const {
      State none(p, State::kAtFirst);
      if constexpr (kEighths) none.factor.value = rings.scales(tile).products;
      return none;
    }

    static __device__ __forceinline__ u32 address(u32 x) {
      return static_cast<u32>(uniform(static_cast<int>(x)));
    }
    [[nodiscard]] __device__ __forceinline__ const HopperTile& here() const {
      return rings.tile(tile);
    }
    [[nodiscard]] __device__ __forceinline__ u32 queries_of(u32 number) const {
      return rings.q.tile(Rings::part(number, group));
    }
    __device__ __forceinline__ void release_queries() const {
      rings.q.release(Rings::part(tile, group), leads);
    }
    [[nodiscard]] __device__ __forceinline__ int first_key() const {
      return (here().first + left) * kKeys;
    }
    [[nodiscard]] __device__ __forceinline__ int row() const {
      return here().facts.place.block * kSpec.queries + thread_row<W>(0, 0);
    }

    // Moves O when the product under way, of the block before, is complete. Warps find out for themselves whether
    // they have to, and wait for products together: PTX asks that those of a group do (".aligned").
    __device__ __forceinline__ void move_later(int half, float by) {
      moved = true;
      alpha[half] = by;
    }
    __device__ __forceinline__ void move_values() {
      if (!moved) return;
      State::multiply(o, 0, 0, alpha[0]);
      State::multiply(o, 0, 1, alpha[1]);
    }

    template <int kHalf>
    __device__ __forceinline__ void mask(typename W::Scores& s) const {
      apply_mask_bits<W, kHalf * kHalfTiles, (kHalf + 1) * kHalfTiles>(
          s, sides_of_rows<kSpec.split>(p, here().facts.sides), first_key());
    }

    // What a block that is not whole asks for before its exponentials. The first of a tile has no O yet.
    __device__ __forceinline__ Asked prepare(typename W::Scores& s, bool first) {
      const WarpPair<W> alone(0);
      const GroupBlocks blocks = rings.blocks(tile, group);
      const bool refers = !kSpec.bias && left == blocks.refer_at;
      const bool follows = kSpec.bias || (blocks.refer_at < 0 && left >= blocks.met);
      const int lower = 2 * left, upper = lower + 1;
      Asked asked = Asked::all;
      if (lower < blocks.covered.first || upper >= blocks.covered.end) {
        if (kLeavesOut && !follows && !blocks.attended.has(upper)) {
          asked = blocks.attended.has(lower) ? Asked::lower : Asked::none;
        }
        if (asked != Asked::none && !blocks.covered.has(lower)) mask<0>(s);
        if (asked == Asked::all && !blocks.covered.has(upper)) mask<1>(s);
      }
      if constexpr (State::kFollows) {
        // Every block's maximum is looked at in any case.
      } else if (refers) {
        softmax.refer_to_some(s);
      } else if (follows) {
        if (first) {
          softmax.follow(s, alone, [](int, int, float) {});
        } else {
          wgmma_wait<0>();
          wgmma_touch(flat(o));
          softmax.follow(s, alone,
                         [&](int, int half, float by) { State::multiply(o, 0, half, by); });
        }
        if (!kSpec.bias && left == blocks.met) softmax.refer_to_any();
      }
      whole_to = left > larger(blocks.refer_at, blocks.met) ? left : blocks.covered_from(left);
      if constexpr (kSpec.bias) {
        // A bias may all but hide the first keys that a row meets. All warps have to agree.
        if (whole_to < left && barrier_or(kOwn + group, 128, softmax.refers_low())) whole_to = left;
      }
      return asked;
    }

    // Zeros in the column tiles from kFirst on.
    template <int kFirst>
    static __device__ __forceinline__ void clear_tiles(typename W::Scores& s) {
#pragma unroll
      for (int n = kFirst; n < W::kKeyTiles; ++n) {
        s[0][n][0] = s[0][n][1] = s[0][n][2] = s[0][n][3] = 0.0f;
      }
    }

    // S of the block that `turn` is to be, -> P. Calls look_ahead() before exponentials.
    template <typename Look>
    __device__ __forceinline__ void soften(typename W::Scores& s, u32 turn, bool whole, bool first,
                                           const Look& look_ahead) {
      const WarpPair<W> alone(0);
      if constexpr (kSpec.general) {
        const TileFacts& facts = here().facts;
        const PowerTerms terms(p, facts.seq, facts.place.b, facts.place.h);
        terms.template apply<W>(s, row(), first_key());
      }
      if constexpr (kSpec.bias) {
        rings.bias.await_full(turn);
        add_copied_bias<W>(s, rings.bias.tile(turn), p.scale);
        __syncwarp();
        rings.bias.release(turn, leads);
      }
      Asked asked = Asked::all;
      moved = false;
      if (!whole) asked = prepare(s, first);
      if constexpr (State::kFollows) {
        softmax.follow(s, alone, [&](int, int half, float by) { move_later(half, by); });
      }
      look_ahead();
      float top = 0.0f;
      if (asked == Asked::all) {
        top = softmax.template powers<kSpec.lse>(s);
      } else if (asked == Asked::lower) {
        top = softmax.template powers<kSpec.lse, 0, kHalfTiles>(s);
        clear_tiles<kHalfTiles>(s);
      } else {
        clear_tiles<0>(s);
      }
      if constexpr (!kSpec.bytes) kept.apply(s);
      // A branch that depends on the exponentials: they are not moved behind a wait that comes after it.
      if (!alone.any(!(top <= kMostTop))) return;
      if constexpr (State::kByBlock) {
        softmax.lift_by_block(s, [&](int, int half, float by) {
          State::multiply(s, 0, half, by);
          move_later(half, by);
        });
      }
      hold();
    }

    __device__ __forceinline__ void pack(const typename W::Scores& s) {
      Products::pack(s, weights);
      if constexpr (kSpec.bytes) kept.apply(weights);
    }

    [[nodiscard]] __device__ __forceinline__ bool knows(Fact fact) const {
      return (facts & fact) != 0;
    }

    // Of tile `of`, the last rows of whose first block may be another sequence's.
    __device__ __forceinline__ void await_values(u32 of) const {
      if (!knows(kValuesThere)) rings.v.await_full(turn);
      if (kEighths || !knows(kFresh)) return;
      const int rows = rings.tile(of).last_rows;
      if (rows < kKeys) cut_values(rings.v.tile(turn), rows);
    }

    __device__ __forceinline__ void await_turn() const {
      if constexpr (kSpec.turns) barrier_sync(kTurn + group, 256);
    }
    __device__ __forceinline__ void pass_turn(int to) const {
      if constexpr (kSpec.turns) barrier_arrive(kTurn + to % kConsumers, 256);
    }

    __device__ __forceinline__ void enter() {
      left = here().blocks - 1;
      whole_to = left + 1;
    }
  };

  struct AnyBlock {
    static constexpr bool kWhole = false;
  };
  struct WholeBlock {
    static constexpr bool kWhole = true;
  };

  static __device__ __forceinline__ void walk_tiles(const ForwardParams& p, const Rings& rings,
                                                    u32& tile, u32& turn) {
    Walk at{p, rings, tile, turn};
    typename W::Scores s;
    typename Products::PartOfValues sums;  // of eighths
    const auto issue_part = [&](u32 values, int part) {
      wgmma_touch(flat(sums));
      wgmma_fence();
      Products::multiply_part(sums, at.weights, values, part);
      wgmma_commit();
    };
    // O += P V of the block whose P is known, or =, and what waits for it.
    const auto issue_values = [&](u32 values) {
      if constexpr (kEighths) {
        issue_part(values, 0);
      } else {
        wgmma_touch(flat(at.o));
        wgmma_fence();
        Products::multiply_values(at.o, at.weights, values, !at.knows(Walk::kFresh));
        wgmma_commit();
      }
    };
    const auto await_products = [&](u32 values) {
      wgmma_wait<0>();
      if constexpr (kEighths) {
#pragma unroll
        for (int part = 0; part < Products::kParts; ++part) {
          if (part > 0) {
            issue_part(values, part);
            wgmma_wait<0>();
          }
          wgmma_touch(flat(sums));
          Products::add_part(at.o, sums, part);
        }
      } else {
        wgmma_touch(flat(at.o));
      }
      rings.v.release(turn++, at.leads);
    };
    // Found out while exponentials are computed: whether a turn's values and the keys of the block that comes
    // next are there.
    const auto look_ahead = [&](u32 turn, bool fresh) {
      return [&, turn, fresh]() {
        at.facts = (rings.k.is_full(turn + 1) ? Walk::kKeysThere : 0) |
                   (rings.v.is_full(turn) ? Walk::kValuesThere : 0) | (fresh ? Walk::kFresh : 0);
      };
    };
    if constexpr (kEighths) clear_fragments(at.o);
    at.enter();
    if (at.group == kConsumers - 1) at.pass_turn(0);
    rings.k.await_full(turn);
    wgmma_fence();
    Products::multiply_keys(s, Walk::address(at.queries_of(tile)),
                            Walk::address(rings.k.tile(turn)));
    wgmma_commit();
    at.draw();
    wgmma_wait<0>();
    wgmma_touch(flat(s));
    rings.k.release(turn, at.leads);
    if (at.left == 0) at.release_queries();
    at.soften(s, turn, false, true, look_ahead(turn, true));
    at.pack(s);
    u32 queries_at = at.queries_of(tile);
    // S and P of the block that comes next, perhaps of the next tile, beside O of the one before. False when
    // there is none.
    const auto step = [&](auto kind) {
      constexpr bool kWhole = decltype(kind)::kWhole;
      const bool ends = !kWhole && at.left == 0;
      const u32 of_tile = tile;
      if (ends) {
        rings.q.await_full(Rings::part(tile + 1, at.group));
        if (!has_rows(rings.tile(tile + 1))) return false;
        ++tile;
        at.enter();
        queries_at = at.queries_of(tile);
      } else {
        --at.left;
      }
      const u32 queries = Walk::address(queries_at), keys = Walk::address(rings.k.tile(turn + 1));
      const u32 values = Walk::address(rings.v.tile(turn));
      if (!at.knows(Walk::kKeysThere)) rings.k.await_full(turn + 1);
      at.await_turn();
      wgmma_touch(flat(s));
      wgmma_fence();
      Products::multiply_keys(s, queries, keys);
      wgmma_commit();
      at.await_values(of_tile);
      issue_values(values);
      at.pass_turn(at.group + 1);
      at.draw();
      wgmma_wait<1>();
      wgmma_touch(flat(s));
      rings.k.release(turn + 1, at.leads);
      if (at.left == 0) at.release_queries();
      State before = at.softmax;
      if (ends) at.softmax = at.state();
      at.soften(s, turn + 1, kWhole, ends, look_ahead(turn + 1, ends));
      await_products(values);
      if constexpr (State::kFollows || State::kByBlock) {
        if (!ends) at.move_values();
      }
      at.pack(s);
      if (ends) {
        write(p, rings, of_tile, before, at.o);
        if constexpr (kEighths) clear_fragments(at.o);
      }
      return true;
    };
#pragma unroll 1
    while (step(AnyBlock{})) {
      // Code of their own for most blocks: what the others need would stand in the way of instructions.
#pragma unroll 1
      while (at.left > at.whole_to) step(WholeBlock{});
    }
    if (at.group == 0) at.await_turn();  // what was passed once too often
    at.await_values(tile);
    const u32 values = Walk::address(rings.v.tile(turn));
    issue_values(values);
    await_products(values);
    write(p, rings, tile, at.softmax, at.o);
  }
};

template <HopperSpec kSpec>
__device__ __forceinline__ void forward_hopper(const HopperParams& params) {
  HopperForward<kSpec>::run(params);
}

}  // namespace attune::kernel
