// Attention forward on Hopper's own matrix products and copy engine (sm_90a).
//
// Schedule. The first warpgroup of a block copies: one thread fetches Q and two rings of blocks, of K and
// of V. The others compute, 64 query rows each. Of each block of keys a warpgroup first issues S = Q K^T,
// then O += P V of the block before, and takes the softmax of S while that product is under way; so the
// tensor cores wait for exponentials only where all warpgroups are at theirs.
//
// Blocks of keys go from the last to the first: what masks and lengths cut comes first. Softmax as in
// forward_portable.cuh; where rows have to be walked again, the copying warp is told by a vote.
//
// Shared memory: forward_hopper_layout.h. Registers of a thread: S: keys/2, P: keys/4, O: value_dim/2; at
// 128 keys and columns 160 of 240, since the copying warpgroup gives its own to the others.
#pragma once

#include <attune/kernel/forward_hopper_layout.h>

#include <attune/arch/barrier.cuh>
#include <attune/arch/registers.cuh>
#include <attune/arch/tma.cuh>
#include <attune/arch/wgmma.cuh>
#include <attune/part/begin_tile.cuh>
#include <attune/part/exact_row.cuh>
#include <attune/part/mask.cuh>
#include <attune/part/ring.cuh>
#include <attune/part/warpgroup_shape.cuh>

namespace attune::kernel {

template <HopperSpec kSpec>
struct HopperForward {
  using E = Elements<kSpec.element>;
  static constexpr bool kBf16 = kSpec.element == Element::bf16;
  static constexpr int kKeys = kSpec.keys, kStages = kSpec.stages;
  static constexpr int kConsumers = consumers_of(kSpec);
  static constexpr int kPanels = panels_of(kSpec.head_dim);
  static constexpr int kValuePanels = panels_of(kSpec.value_dim);
  static constexpr HopperShared kShared = forward_hopper_shared(kSpec);
  using W =
      WarpgroupShape<kSpec.element, kSpec.queries, kKeys, kSpec.value_dim, kPanels * kPanelBytes>;
  static constexpr bool kTerms = kSpec.bias || kSpec.general;
  using State = Softmax<W, kTerms>;
  static constexpr bool kWide = State::kWide;
  using KeyRing = Ring<kStages>;

  // Of 64K registers.
  static constexpr int kOwnRegisters = kConsumers == 3 ? 160 : 240;
  static constexpr int kCopyRegisters = kConsumers == 3 ? 32 : 24;
  // Barriers by number. Turns: one a warpgroup; cut: likewise.
  static constexpr int kTurn = 1, kCut = kTurn + kConsumers, kVote = kCut + kConsumers;
  static constexpr int kVoters = kConsumers * 128 + 32;
  static constexpr float kMost = 3.0e38f;

  struct Rings {
    u32 q;
    KeyRing k, v;
    __device__ __forceinline__ explicit Rings(u32 memory)
        : q(memory + kShared.barriers),
          k(memory + kShared.k, kShared.key_bytes, q + 8),
          v(memory + kShared.v, kShared.value_bytes, q + 8 + KeyRing::kBarrierBytes) {}
  };

  // What all lanes of a warp agree on, said so that the compiler knows: it then computes the descriptors of
  // tiles once a warp.
  static __device__ __forceinline__ int uniform(int x) { return __shfl_sync(~0u, x, 0); }

  // Blocks of keys that any row of the tile attends to.
  struct Blocks {
    int first, end;
    __device__ __forceinline__ explicit Blocks(const TileFacts& facts) {
      const int rows = smaller(kSpec.queries, facts.seq.sq - facts.place.block * kSpec.queries);
      first = uniform(facts.sides.begin(0) / kKeys);
      end = uniform(larger(first, (facts.sides.end(rows - 1) + kKeys - 1) / kKeys));
    }
  };

  static __device__ __forceinline__ void run(const HopperParams& p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    const u32 memory = shared_address(shared);
    auto& facts = *reinterpret_cast<TileFacts*>(shared + kShared.facts);
    Rings rings(memory);
    if (threadIdx.x == 0) {
      mbarrier_init(rings.q, 1);
      rings.k.init(kConsumers * 4);
      rings.v.init(kConsumers * 4);
      mbarrier_init_fence();
    }
    if (!begin_tile<kSpec, W>(p.f, facts)) return;
    if (threadIdx.x < 128) {
      give_registers<kCopyRegisters>();
      if (threadIdx.x < 32) copy(p, memory, rings, facts);
    } else {
      take_registers<kOwnRegisters>();
      compute(p.f, memory, rings, facts);
    }
  }

  static __device__ __forceinline__ void copy(const HopperParams& p, u32 memory, Rings& rings,
                                              const TileFacts& facts) {
    const bool leads = threadIdx.x == 0;
    const TilePlace tile = facts.place;
    const Blocks blocks(facts);
    const int hkv = tile.h / p.f.group;
    const int b = p.f.cu_seqlens_k.data != nullptr ? 0 : tile.b;
    const auto fetch = [&](KeyRing& ring, const TensorMap& map, int panels, int block) {
      if (leads) {
        const u32 to = ring.tile(), full = ring.fill();
        for (int panel = 0; panel < panels; ++panel) {
          load_box(to + panel * (kKeys * kPanelBytes), map, full, panel * kPanelColumns, hkv,
                   facts.seq.k_start + block * kKeys, b);
        }
      }
      ring.advance();
    };
    if (leads && blocks.first < blocks.end) {
      mbarrier_expect(rings.q, kShared.query_bytes);
      for (int panel = 0; panel < kPanels; ++panel) {
        load_box(memory + panel * (kSpec.queries * kPanelBytes), p.q, rings.q,
                 panel * kPanelColumns, tile.h, facts.seq.q_start + tile.block * kSpec.queries,
                 p.f.cu_seqlens_q.data != nullptr ? 0 : tile.b);
      }
    }
    for (bool again = false;; again = true) {
      if (blocks.first < blocks.end) fetch(rings.k, p.k, kPanels, blocks.end - 1);
      for (int block = blocks.end - 1; block >= blocks.first; --block) {
        if (block > blocks.first) fetch(rings.k, p.k, kPanels, block - 1);
        fetch(rings.v, p.v, kValuePanels, block);
      }
      if (!kWide || again || !barrier_or(kVote, kVoters, false)) break;
    }
  }

  static __device__ __forceinline__ void compute(const ForwardParams& p, u32 memory, Rings& rings,
                                                 const TileFacts& facts) {
    const WarpPair<W> alone(0);
    State softmax(p, State::kAtFirst);
    typename W::Values o;
    for (;;) {
      clear_fragments(o);
      walk_keys(p, memory, rings, facts, softmax, o);
      if (!kWide || softmax.careful == State::kAlways ||
          !barrier_or(kVote, kVoters, softmax.overflowed())) {
        break;
      }
      softmax = State(p, State::kAlways);
    }

    const TilePlace& tile = facts.place;
    const Sequence& seq = facts.seq;
    softmax.finish(p, tile.h, alone);
    write_lse<W>(p, seq, tile, softmax);
    const u32 bad = doubtful_rows<W, true>(o, softmax);
    scale_values<W>(o, softmax, kSpec.dropout ? p.dropout.keep_scale : 1.0f);
    write_values<kSpec.element, true, W>(p, seq, tile, o, memory);
    if (alone.any(bad != 0)) {
      // Over this warp's rows of Q, where O has just left.
      exact_rows<kSpec, W>(p, facts, softmax, bad, memory + W::first_row() * W::QTile::kPanel);
    }
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

  // O and the softmax's state of this tile.
  static __device__ __forceinline__ void walk_keys(const ForwardParams& p, u32 memory, Rings& rings,
                                                   const TileFacts& facts, State& softmax,
                                                   typename W::Values& o) {
    const Blocks blocks(facts);
    if (blocks.first >= blocks.end) return;
    const WarpPair<W> alone(0);
    const int group = uniform(static_cast<int>(threadIdx.x) / 128) - 1;
    const bool leads = threadIdx.x % 32 == 0;
    const u32 q = memory + group * (64 * kPanelBytes);
    const TilePlace tile = facts.place;
    const ScoreTerms terms(p, facts.seq, tile.b, tile.h, kSpec.bias, kSpec.general);
    typename W::Scores s;
    Weights weights;
    // What O is to be multiplied by: with the products that are under way, and with the next ones.
    float alpha[2] = {1.0f, 1.0f}, next[2] = {1.0f, 1.0f};
    // S of a block -> P.
    const auto soften = [&](int block) {
      const int j = block * kKeys, row = tile.block * kSpec.queries + thread_row<W>(0, 0);
      if constexpr (kTerms) {
        BiasTile<W> bias;
        if constexpr (kSpec.bias) bias.load(terms, row, facts.seq.sq - 1, j, facts.seq.sk);
        bias.apply(s, terms, row, j);
      }
      if (!WarpRows<W>(facts, j).cover) apply_mask<W>(s, facts.sides, j);
      if (!kWide || softmax.careful != State::kNever) {
        softmax.settle(s, alone, [&](int, int half, float by) { alpha[half] *= by; });
      }
      const float top = softmax.powers(s);
      if constexpr (kSpec.dropout) apply_dropout<W>(s, p, tile.b, tile.h, row, j);
      // A branch that depends on all sums: what comes before it is not moved behind a wait after it.
      if (alone.any(!(top <= (kWide ? State::kLift : kMost)))) {
        softmax.lift(alone, [&](int, int half, float by) { next[half] *= by; });
        hold();
      }
    };
    const auto scale = [&]() {
      if (!alone.any(alpha[0] != 1.0f || alpha[1] != 1.0f)) return;
      State::multiply(o, 0, 0, alpha[0]);
      State::multiply(o, 0, 1, alpha[1]);
    };
    const auto take_next = [&]() {
      alpha[0] = next[0], alpha[1] = next[1];
      next[0] = next[1] = 1.0f;
    };
    const auto await_turn = [&]() {
      if constexpr (kSpec.turns) barrier_sync(kTurn + group, 256);
    };
    const auto pass_turn = [&](int to) {
      if constexpr (kSpec.turns) barrier_arrive(kTurn + to % kConsumers, 256);
    };

    if (group == kConsumers - 1) pass_turn(0);
    mbarrier_wait(rings.q, 0);
    rings.k.await_full();
    wgmma_fence();
    multiply_keys(s, q, rings.k.tile());
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_touch(flat(s));
    rings.k.release(leads);
    soften(blocks.end - 1);
    take_next();  // O is 0
    pack(s, weights);
    // Once, before the first product with V.
    const auto await_values = [&](int block) {
      rings.v.await_full();
      const bool goes_on = p.cu_seqlens_k.data != nullptr || p.key_lengths.data != nullptr;
      const int rows = facts.seq.sk - block * kKeys;
      if (goes_on && rows < kKeys) cut_values(rings.v.tile(), rows);
    };
#pragma unroll 1
    for (int block = blocks.end - 2; block >= blocks.first; --block) {
      rings.k.await_full();
      await_turn();
      wgmma_touch(flat(s));
      wgmma_fence();
      multiply_keys(s, q, rings.k.tile());
      wgmma_commit();
      await_values(block + 1);
      wgmma_touch(flat(o));
      wgmma_fence();
      add_values(o, weights, rings.v.tile());
      wgmma_commit();
      pass_turn(group + 1);
      wgmma_wait<1>();
      wgmma_touch(flat(s));
      rings.k.release(leads);
      soften(block);
      wgmma_wait<0>();
      wgmma_touch(flat(o));
      rings.v.release(leads);
      scale();
      take_next();
      pack(s, weights);
    }
    if (group == 0) await_turn();  // what was passed once too often
    await_values(blocks.first);
    wgmma_touch(flat(o));
    wgmma_fence();
    add_values(o, weights, rings.v.tile());
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_touch(flat(o));
    rings.v.release(leads);
    scale();
  }
};

template <HopperSpec kSpec>
__device__ __forceinline__ void forward_hopper(const HopperParams& params) {
  HopperForward<kSpec>::run(params);
}

}  // namespace attune::kernel
