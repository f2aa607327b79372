// Attention forward on Hopper's own matrix products and copy engine (sm_90a).
//
// Schedule. The first warpgroup of a block copies: one thread fetches Q and two rings of blocks, of K and
// of V. The others compute, 64 query rows each. Of each block of keys a warpgroup first issues S = Q K^T,
// then O += P V of the block before, and takes the softmax of S while that product is under way; so the
// tensor cores wait for exponentials only where all warpgroups are at theirs.
//
// A block of threads computes tile after tile: the first keys and Q of the next are fetched while O of the
// last is written, from registers. Blocks of keys go from the last to the first: what masks and lengths cut
// comes first. Softmax as in forward_portable.cuh; tiles that have to be walked again are flagged, and come
// once more at the end.
//
// Shared memory: forward_hopper_layout.h. Registers of a thread: S: keys/2, P: keys/4, O: value_dim/2; at
// 128 keys and columns 160 of 232, since the copying warpgroup gives its own to the others.
#pragma once

#include <attune/kernel/forward_hopper_layout.h>

#include <attune/arch/barrier.cuh>
#include <attune/arch/registers.cuh>
#include <attune/arch/tma.cuh>
#include <attune/arch/wgmma.cuh>
#include <attune/part/exact_row.cuh>
#include <attune/part/mask.cuh>
#include <attune/part/quad_rows.cuh>
#include <attune/part/result.cuh>
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
  using W = WarpgroupShape<kSpec.element, kSpec.queries, kKeys, kSpec.value_dim>;
  static constexpr bool kTerms = kSpec.bias || kSpec.general;
  using State = Softmax<W, kTerms>;
  static constexpr bool kWide = State::kWide;
  using KeyRing = Ring<kStages>;

  // Of 64K registers.
  static constexpr int kOwnRegisters = kConsumers == 3 ? 160 : 232;
  static constexpr int kCopyRegisters = kConsumers == 3 ? 32 : 40;
  // Barriers by number. Turns: one a warpgroup; cut: likewise.
  static constexpr int kTurn = 1, kCut = kTurn + kConsumers, kVote = kCut + kConsumers;
  static constexpr int kVoters = kConsumers * 128 + 32;
  static constexpr float kMost = 3.0e38f;

  // What the copying warp tells of a tile.
  struct Tile {
    TileFacts facts;
    int flag;   // its place among the flags
    int there;  // 0: no tile is left
  };
  static_assert(sizeof(Tile) <= kHopperTileBytes);

  // Q, and of which tile it is: one buffer of Q, two descriptions. Tiles are counted as turns are.
  struct Queries {
    u32 full, free;
    unsigned char* tiles;
    [[nodiscard]] __device__ __forceinline__ Tile& tile(u32 number) const {
      return *reinterpret_cast<Tile*>(tiles + number % 2 * kHopperTileBytes);
    }
    __device__ __forceinline__ void await_full(u32 number) const {
      mbarrier_wait(full, number & 1);
    }
    __device__ __forceinline__ void await_free(u32 number) const {
      mbarrier_wait(free, number & 1 ^ 1);
    }
    __device__ __forceinline__ void release(bool leads) const {
      if (leads) mbarrier_arrive(free);
    }
  };

  struct Rings {
    u32 memory;  // where Q lies
    Queries q;
    KeyRing k, v;
    __device__ __forceinline__ Rings(u32 memory, unsigned char* shared)
        : memory(memory),
          q{memory + kShared.barriers, memory + kShared.barriers + 8, shared + kShared.tiles},
          k{memory + kShared.k, q.free + 8, kShared.key_bytes},
          v{memory + kShared.v, q.free + 8 + KeyRing::kBarrierBytes, kShared.value_bytes} {}

    // By one thread, before a block's barrier.
    __device__ __forceinline__ void init() const {
      mbarrier_init(q.full, 1);
      mbarrier_init(q.free, kConsumers * 4);
      k.init(kConsumers * 4);
      v.init(kConsumers * 4);
      mbarrier_init_fence();
    }
  };

  // What all lanes of a warp agree on, said so that the compiler knows: it then computes the descriptors of
  // tiles once a warp.
  static __device__ __forceinline__ int uniform(int x) { return __shfl_sync(~0u, x, 0); }
  static __device__ __forceinline__ bool leads_warp() { return threadIdx.x % 32 == 0; }

  // Blocks of keys that any row of the tile attends to.
  struct Blocks {
    int first, end;
    __device__ __forceinline__ explicit Blocks(const TileFacts& facts) {
      const int rows = smaller(kSpec.queries, facts.seq.sq - facts.place.block * kSpec.queries);
      first = uniform(facts.sides.begin(0) / kKeys);
      end = uniform(rows > 0 ? (facts.sides.end(rows - 1) + kKeys - 1) / kKeys : 0);
    }
    [[nodiscard]] __device__ __forceinline__ bool none() const { return first >= end; }
  };

  static __device__ __forceinline__ void run(const HopperParams& p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    const Rings rings(shared_address(shared), shared);
    unsigned char* const flags = shared + kShared.flags;
    for (int i = threadIdx.x; i <= kTileFlags; i += threads_of(kSpec)) flags[i] = 0;
    if (threadIdx.x == 0) rings.init();
    __syncthreads();
    if (threadIdx.x < 128) {
      give_registers<kCopyRegisters>();
      if (threadIdx.x < 32) copy_tiles(p, rings, flags);
    } else {
      take_registers<kOwnRegisters>();
      compute_tiles(p.f, rings, flags);
    }
  }

  // Whether flagged tiles have to be walked again, when all threads have come to the end of theirs.
  static __device__ __forceinline__ bool again(int round, bool flagged) {
    return kWide && round == 0 && barrier_or(kVote, kVoters, flagged);
  }

  static __device__ __forceinline__ void copy_tiles(const HopperParams& p, const Rings& rings,
                                                    const unsigned char* flags) {
    if (leads_warp()) {
      prefetch_map(p.q);
      prefetch_map(p.k);
      prefetch_map(p.v);
    }
    int round = 0;
    u32 tiles = 0, turn = 0;
    do {
      int flag = 0;
      // To and fro: under a causal mask the longest come first, and who had a long one gets a short one.
      bool fro = false;
      for (u32 first = 0; first < p.f.tiles; first += gridDim.x, fro = !fro) {
        const u32 number = first + (fro ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
        if (number < p.f.tiles && (round == 0 || flags[flag] != 0)) {
          copy(p, rings, number, flag, tiles++, turn);
        }
        flag = flag + 1 == kTileFlags ? 0 : flag + 1;
      }
      rings.q.await_free(tiles);
      if (leads_warp()) {
        rings.q.tile(tiles).there = 0;
        mbarrier_arrive(rings.q.full);
      }
      ++tiles;
    } while (again(round++, false));
  }

  // `turn` counts blocks of keys.
  static __device__ __forceinline__ void copy(const HopperParams& p, const Rings& rings, u32 number,
                                              int flag, u32 tile, u32& turn) {
    const bool leads = leads_warp();
    const TilePlace place(p.f, number);
    const Sequence seq = sequence_of(p.f, place.b);
    const int first = place.block * kSpec.queries;
    const TileFacts facts{place, seq, MaskSides(p.f, seq, first), nullptr, nullptr};
    const Blocks blocks(facts);
    const int hkv = place.h / p.f.group;
    const int b = p.f.cu_seqlens_k.data != nullptr ? 0 : place.b;
    const auto fetch = [&](const KeyRing& ring, u32 turn, const TensorMap& map, int panels,
                           int block) {
      if (!leads) return;
      const u32 to = ring.tile(turn), full = ring.fill(turn);
      for (int panel = 0; panel < panels; ++panel) {
        load_box(to + panel * (kKeys * kPanelBytes), map, full, panel * kPanelColumns, hkv,
                 seq.k_start + block * kKeys, b);
      }
    };
    if (!blocks.none()) fetch(rings.k, turn, p.k, kPanels, blocks.end - 1);
    // The tile before has no more use for Q, and the one before that none for its description.
    rings.q.await_free(tile);
    if (leads) {
      rings.q.tile(tile) = {facts, flag, 1};
      if (blocks.none()) {
        mbarrier_arrive(rings.q.full);
      } else {
        mbarrier_expect(rings.q.full, kShared.query_bytes);
        for (int panel = 0; panel < kPanels; ++panel) {
          load_box(rings.memory + panel * (kSpec.queries * kPanelBytes), p.q, rings.q.full,
                   panel * kPanelColumns, place.h, seq.q_start + first,
                   p.f.cu_seqlens_q.data != nullptr ? 0 : place.b);
        }
      }
    }
    for (int block = blocks.end - 1; block >= blocks.first; --block, ++turn) {
      if (block > blocks.first) fetch(rings.k, turn + 1, p.k, kPanels, block - 1);
      fetch(rings.v, turn, p.v, kValuePanels, block);
    }
  }

  static __device__ __forceinline__ void compute_tiles(const ForwardParams& p, const Rings& rings,
                                                       unsigned char* flags) {
    int round = 0;
    u32 tiles = 0, turn = 0;
    do {
      for (bool there = true; there; ++tiles) {
        rings.q.await_full(tiles);
        const Tile& tile = rings.q.tile(tiles);
        there = uniform(tile.there) != 0;
        if (!there) {
          rings.q.release(leads_warp());
          continue;
        }
        write_outside<kSpec.element, kConsumers * 128, W::kQueries>(
            p, tile.facts.seq, tile.facts.place, static_cast<int>(threadIdx.x) - 128);
        State softmax(p, round == 0 ? State::kAtFirst : State::kAlways);
        compute(p, rings, tile.facts, turn, softmax);
        if (kWide && round == 0 && softmax.overflowed()) {
          flags[tile.flag] = flags[kTileFlags] = 1;
        }
      }
    } while (again(round++, flags[kTileFlags] != 0));
  }

  static __device__ __forceinline__ void compute(const ForwardParams& p, const Rings& rings,
                                                 const TileFacts& facts, u32& turn,
                                                 State& softmax) {
    const WarpPair<W> alone(0);
    typename W::Values o;
    clear_fragments(o);
    walk_keys(p, rings, facts, turn, softmax, o);

    const TilePlace& tile = facts.place;
    const Sequence& seq = facts.seq;
    softmax.finish(p, tile.h, alone);
    write_lse<W>(p, seq, tile, softmax);
    const u32 bad = doubtful_rows<W, true>(o, softmax);
    scale_values<W>(o, softmax, kSpec.dropout ? p.dropout.keep_scale : 1.0f);
    const QueryRows<typename E::Bits> rows(p.o, tile.b, seq.q_start, tile.h);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = tile.block * kSpec.queries + thread_row<W>(0, half);
      write_row<kSpec.element>(i < seq.sq ? rows(i) : nullptr, o[0], half, p.dv);
    }
    if (alone.any(bad != 0)) {
      const u32 scratch = kShared.scratch + (threadIdx.x / 32 - 4) * kRowScratchBytes;
      exact_rows<kSpec, W>(p, facts, softmax, bad, rings.memory + scratch);
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
  static __device__ __forceinline__ void walk_keys(const ForwardParams& p, const Rings& rings,
                                                   const TileFacts& facts, u32& turn,
                                                   State& softmax, typename W::Values& o) {
    const Blocks blocks(facts);
    const bool leads = leads_warp();
    if (blocks.none()) {
      rings.q.release(leads);
      return;
    }
    const WarpPair<W> alone(0);
    const int group = uniform(static_cast<int>(threadIdx.x) / 128) - 1;
    const u32 q = rings.memory + group * (64 * kPanelBytes);
    const TilePlace tile = facts.place;
    const ScoreTerms terms(p, facts.seq, tile.b, tile.h, kSpec.bias, kSpec.general);
    typename W::Scores s;
    Weights weights;
    float alpha[2];  // what O is to be multiplied by, with the product that is under way
    // S of a block -> P.
    const auto soften = [&](int block) {
      const int j = block * kKeys, row = tile.block * kSpec.queries + thread_row<W>(0, 0);
      if constexpr (kTerms) {
        BiasTile<W> bias;
        if constexpr (kSpec.bias) bias.load(terms, row, facts.seq.sq - 1, j, facts.seq.sk);
        bias.apply(s, terms, row, j);
      }
      if (!WarpRows<W>(facts, j).cover) apply_mask<W>(s, facts.sides, j);
      alpha[0] = alpha[1] = 1.0f;
      if (!kWide || softmax.careful != State::kNever) {
        softmax.settle(s, alone, [&](int, int half, float by) { alpha[half] *= by; });
      }
      const float top = softmax.powers(s);
      if constexpr (kSpec.dropout) apply_dropout<W>(s, p, tile.b, tile.h, row, j);
      // A branch that depends on all sums: exponentials are not moved behind a wait that comes after it.
      if (alone.any(!(top <= (kWide ? State::kLift : kMost)))) {
        softmax.lift(alone, [&](int, int half, float by) {
          alpha[half] *= by;
          State::multiply(s, 0, half, by);
        });
        hold();
      }
    };
    const auto await_values = [&](int block) {
      rings.v.await_full(turn);
      const bool goes_on = p.cu_seqlens_k.data != nullptr || p.key_lengths.data != nullptr;
      const int rows = facts.seq.sk - block * kKeys;
      if (goes_on && rows < kKeys) cut_values(rings.v.tile(turn), rows);
    };
    const auto await_turn = [&]() {
      if constexpr (kSpec.turns) barrier_sync(kTurn + group, 256);
    };
    const auto pass_turn = [&](int to) {
      if constexpr (kSpec.turns) barrier_arrive(kTurn + to % kConsumers, 256);
    };

    if (group == kConsumers - 1) pass_turn(0);
    rings.k.await_full(turn);
    wgmma_fence();
    multiply_keys(s, q, rings.k.tile(turn));
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_touch(flat(s));
    rings.k.release(turn, leads);
    if (blocks.end - blocks.first == 1) rings.q.release(leads);
    soften(blocks.end - 1);  // O is 0, whatever it is to be multiplied by
    pack(s, weights);
#pragma unroll 1
    for (int block = blocks.end - 2; block >= blocks.first; --block) {
      rings.k.await_full(turn + 1);
      await_turn();
      wgmma_touch(flat(s));
      wgmma_fence();
      multiply_keys(s, q, rings.k.tile(turn + 1));
      wgmma_commit();
      await_values(block + 1);
      wgmma_touch(flat(o));
      wgmma_fence();
      add_values(o, weights, rings.v.tile(turn));
      wgmma_commit();
      pass_turn(group + 1);
      wgmma_wait<1>();
      wgmma_touch(flat(s));
      rings.k.release(turn + 1, leads);
      if (block == blocks.first) rings.q.release(leads);
      soften(block);
      wgmma_wait<0>();
      wgmma_touch(flat(o));
      rings.v.release(turn++, leads);
      if (alone.any(alpha[0] != 1.0f || alpha[1] != 1.0f)) {
        State::multiply(o, 0, 0, alpha[0]);
        State::multiply(o, 0, 1, alpha[1]);
      }
      pack(s, weights);
    }
    if (group == 0) await_turn();  // what was passed once too often
    await_values(blocks.first);
    wgmma_touch(flat(o));
    wgmma_fence();
    add_values(o, weights, rings.v.tile(turn));
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_touch(flat(o));
    rings.v.release(turn++, leads);
  }
};

template <HopperSpec kSpec>
__device__ __forceinline__ void forward_hopper(const HopperParams& params) {
  HopperForward<kSpec>::run(params);
}

}  // namespace attune::kernel
