// Attention forward on Hopper's own matrix products and copy engine (sm_90a).
//
// Schedule. The first warpgroup of a block copies: one thread fetches Q and a ring of blocks of K and V.
// The others compute, 64 query rows each. Of each block of keys a warpgroup first issues S = Q K^T, then
// O += P V of the block before, and takes the softmax of S while that product is under way; so the
// tensor cores wait for exponentials only where both warpgroups are at theirs.
//
// Blocks of keys go from the last to the first: what masks cut comes first, and the row's reference m is
// near its maximum from the start. Registers move from the copying warpgroup to the others.
//
// Shared memory: [Q][stages x K][stages x V][barriers], each tile in panels of 64 columns, [rows][128
// bytes], chunks exchanged as the copy engine does.
#pragma once

#include <attune/arch/barrier.cuh>
#include <attune/arch/tma.cuh>
#include <attune/arch/wgmma.cuh>
#include <attune/part/score.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

struct HopperSpec {
  Element element = Element::bf16;
  int head_dim = 128;
  int queries = 128, keys = 128;
  int stages = 2;
  bool turns = false;  // warpgroups issue products in turns, so that one's softmax meets another's
};

struct HopperParams {
  ForwardParams f;
  TensorMap q, k, v;
};

constexpr int hopper_threads(const HopperSpec& spec) { return (spec.queries / 64 + 1) * 128; }

struct HopperShared {
  int q, k, v, barriers, total, query_bytes, key_bytes;
};

constexpr HopperShared hopper_shared(const HopperSpec& spec) {
  const int row = spec.head_dim * 2, queries = spec.queries * row, keys = spec.keys * row;
  const int k = queries, v = k + spec.stages * keys, barriers = v + spec.stages * keys;
  return {0, k, v, barriers, barriers + (1 + 4 * spec.stages) * 8, queries, keys};
}

template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <HopperSpec kSpec>
struct HopperForward {
  using E = Elements<kSpec.element>;
  static constexpr bool kBf16 = kSpec.element == Element::bf16;
  static constexpr int kD = kSpec.head_dim, kKeys = kSpec.keys, kStages = kSpec.stages;
  static constexpr int kConsumers = kSpec.queries / 64, kPanels = kD / 64;
  static constexpr HopperShared kShared = hopper_shared(kSpec);
  static constexpr int kScores = kKeys / 2, kValues = kD / 2;  // a thread's
  static constexpr int kOwnRegisters = kConsumers == 3 ? 160 : 240;
  static constexpr int kCopyRegisters = kConsumers == 3 ? 32 : 24;

  struct Barriers {
    u32 base;
    __device__ __forceinline__ u32 q() const { return base; }
    __device__ __forceinline__ u32 k_full(int s) const { return base + 8 * (1 + s); }
    __device__ __forceinline__ u32 k_free(int s) const { return base + 8 * (1 + kStages + s); }
    __device__ __forceinline__ u32 v_full(int s) const { return base + 8 * (1 + 2 * kStages + s); }
    __device__ __forceinline__ u32 v_free(int s) const { return base + 8 * (1 + 3 * kStages + s); }
  };

  // A place in the ring: the parity of its phase changes with every round.
  struct Stage {
    int at = 0;
    u32 parity = 0;
    __device__ __forceinline__ void advance() {
      if (++at == kStages) at = 0, parity ^= 1;
    }
  };

  // Blocks of keys that any row of the tile attends to.
  struct Blocks {
    int first, end;
  };

  static __device__ __forceinline__ Blocks blocks_of(const Sequence& seq, const MaskSides& sides,
                                                     int rows) {
    const int begin = sides.begin(0) / kKeys, end = (sides.end(rows - 1) + kKeys - 1) / kKeys;
    return {begin, larger(begin, end)};
  }

  static __device__ __forceinline__ void run(const HopperParams& p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    const u32 memory = shared_address(shared);
    const Barriers bar{memory + kShared.barriers};
    const ForwardParams& f = p.f;
    if (threadIdx.x == 0) {
      mbarrier_init(bar.q(), 1);
      for (int s = 0; s < kStages; ++s) {
        mbarrier_init(bar.k_full(s), 1);
        mbarrier_init(bar.v_full(s), 1);
        mbarrier_init(bar.k_free(s), kConsumers);
        mbarrier_init(bar.v_free(s), kConsumers);
      }
      mbarrier_init_fence();
    }
    const TilePlace tile(f);
    const Sequence seq = sequence_of(f, tile.b);
    const int first = tile.block * kSpec.queries;
    const MaskSides sides(f, seq, first);
    const int rows = smaller(kSpec.queries, seq.sq - first);
    const Blocks blocks = rows > 0 ? blocks_of(seq, sides, rows) : Blocks{0, 0};
    __syncthreads();
    if (threadIdx.x < 128) {
      give_registers<kCopyRegisters>();
      if (threadIdx.x == 0) copy(p, memory, bar, tile, seq, first, blocks);
    } else {
      take_registers<kOwnRegisters>();
      compute(p, memory, bar, tile, seq, sides, first, rows, blocks);
    }
  }

  static __device__ __forceinline__ void copy(const HopperParams& p, u32 memory,
                                              const Barriers& bar, const TilePlace& tile,
                                              const Sequence& seq, int first,
                                              const Blocks& blocks) {
    const int hkv = tile.h / p.f.group;
    if (blocks.first == blocks.end) return;
    mbarrier_expect(bar.q(), kShared.query_bytes);
    for (int panel = 0; panel < kPanels; ++panel) {
      load_box(memory + kShared.q + panel * kSpec.queries * 128, p.q, bar.q(), panel * 64, tile.h,
               seq.q_start + first, tile.b);
    }
    Stage stage;
    for (int block = blocks.end - 1; block >= blocks.first; --block, stage.advance()) {
      const int row = seq.k_start + block * kKeys;
      const auto fetch = [&](const TensorMap& map, u32 to, u32 full, u32 free) {
        mbarrier_wait(free, stage.parity ^ 1);
        mbarrier_expect(full, kShared.key_bytes);
        for (int panel = 0; panel < kPanels; ++panel) {
          load_box(to + panel * kKeys * 128, map, full, panel * 64, hkv, row, tile.b);
        }
      };
      fetch(p.k, memory + kShared.k + stage.at * kShared.key_bytes, bar.k_full(stage.at),
            bar.k_free(stage.at));
      fetch(p.v, memory + kShared.v + stage.at * kShared.key_bytes, bar.v_full(stage.at),
            bar.v_free(stage.at));
    }
  }

  static __device__ __forceinline__ void multiply_scores(float (&s)[kScores], u32 q, u32 k) {
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const u64 a = wgmma_tile(q + panel * kSpec.queries * 128 + step * 32, 16, 1024);
        const u64 b = wgmma_tile(k + panel * kKeys * 128 + step * 32, 16, 1024);
        Wgmma<kKeys>::template multiply<kBf16>(s, a, b, panel + step > 0);
      }
    }
  }

  static __device__ __forceinline__ void add_values(float (&o)[kValues],
                                                    const u32 (&p)[kKeys / 16][4], u32 v) {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      Wgmma<kD>::template add<kBf16>(o, p[step], wgmma_tile(v + step * 2048, kKeys * 128, 1024));
    }
  }

  static __device__ __forceinline__ void compute(const HopperParams& p, u32 memory,
                                                 const Barriers& bar, const TilePlace& tile,
                                                 const Sequence& seq, const MaskSides& sides,
                                                 int first, int rows, const Blocks& blocks) {
    const ForwardParams& f = p.f;
    const int group = static_cast<int>(threadIdx.x) / 128 - 1, thread = threadIdx.x % 128;
    const int row0 = group * 64 + thread / 32 * 16 + thread % 32 / 4;  // and row0 + 8, of the tile
    const u32 q = memory + kShared.q + group * 64 * 128;
    float o[kValues], s[kScores];
    u32 weights[kKeys / 16][4];
    float m[2] = {-infinity(), -infinity()}, l[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < kValues; ++i) o[i] = 0.0f;
    const float factor = f.scale_log2;

    // S -> P, and what O and the sums are to be multiplied with before P V is added.
    const auto soften = [&](int block, float(&shrink)[2]) {
      const int j = block * kKeys;
      const int last = smaller(rows, group * 64 + 64) - 1;
      if (!(j >= sides.begin(last) && j + kKeys <= sides.end(group * 64))) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int column = j + 2 * (thread % 4);
          const int low = sides.begin(row0 + 8 * half) - column;
          const int high = sides.end(row0 + 8 * half) - column;
#pragma unroll
          for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              if (8 * n + e < low || 8 * n + e >= high) s[4 * n + 2 * half + e] = -infinity();
            }
          }
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = m[half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
          most = fmaxf(most, fmaxf(s[4 * n + 2 * half], s[4 * n + 2 * half + 1]));
        }
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
        const float base = most == -infinity() ? 0.0f : most * factor;
        shrink[half] = exp2_fast(m[half] * factor - base);
        m[half] = most;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& x = s[4 * n + 2 * half + e];
            x = exp2_fast(x * factor - base);
            sum += x;
          }
        }
        l[half] = l[half] * shrink[half] + sum;
      }
    };
    // Numbered barriers 1 to kConsumers: whose turn it is to issue.
    const auto await_turn = [&]() {
      if constexpr (kSpec.turns) barrier_sync(1 + group, 256);
    };
    const auto pass_turn = [&](int to) {
      if constexpr (kSpec.turns) barrier_arrive(1 + to % kConsumers, 256);
    };
    const auto pack = [&]() {
#pragma unroll
      for (int step = 0; step < kKeys / 16; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          weights[step][i] = E::pack(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
        }
      }
    };

    if (blocks.first < blocks.end) {
      Stage ks, vs;
      const auto tile_at = [&](int base, const Stage& stage) {
        return memory + base + stage.at * kShared.key_bytes;
      };
      const auto free = [&](u32 barrier) {
        if (thread == 0) mbarrier_arrive(barrier);
      };
      float shrink[2];
      if (group == kConsumers - 1) pass_turn(0);  // the first one's
      mbarrier_wait(bar.q(), 0);
      mbarrier_wait(bar.k_full(ks.at), ks.parity);
      wgmma_fence();
      multiply_scores(s, q, tile_at(kShared.k, ks));
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_touch(s);
      free(bar.k_free(ks.at));
      ks.advance();
      soften(blocks.end - 1, shrink);
      pack();
#pragma unroll 1
      for (int block = blocks.end - 2; block >= blocks.first; --block) {
        mbarrier_wait(bar.k_full(ks.at), ks.parity);
        await_turn();
        wgmma_touch(s);
        wgmma_fence();
        multiply_scores(s, q, tile_at(kShared.k, ks));
        wgmma_commit();
        mbarrier_wait(bar.v_full(vs.at), vs.parity);
        wgmma_touch(o);
        add_values(o, weights, tile_at(kShared.v, vs));
        wgmma_commit();
        pass_turn(group + 1);
        wgmma_wait<1>();
        wgmma_touch(s);
        free(bar.k_free(ks.at));
        ks.advance();
        soften(block, shrink);
        wgmma_wait<0>();
        wgmma_touch(o);
        free(bar.v_free(vs.at));
        vs.advance();
#pragma unroll
        for (int i = 0; i < kValues; ++i) o[i] *= shrink[i / 2 % 2];
        pack();
      }
      if (group == 0) await_turn();  // what was passed once too often
      mbarrier_wait(bar.v_full(vs.at), vs.parity);
      wgmma_touch(o);
      wgmma_fence();
      add_values(o, weights, tile_at(kShared.v, vs));
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_touch(o);
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = l[half];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
      const int row = row0 + 8 * half;
      if (row >= rows) continue;
      const i64 i = seq.q_start + first + row;
      if (f.lse.data != nullptr && thread % 4 == 0) {
        f.lse.data[tile.b * f.lse.b_stride + tile.h * f.lse.h_stride +
                   (first + row) * f.lse.s_stride] =
            sum > 0.0f ? m[half] * f.scale + logf(sum) : -infinity();
      }
      auto* const to = static_cast<typename E::Bits*>(f.o.data) + tile.b * f.o.b_stride +
                       i * f.o.s_stride + tile.h * f.o.h_stride + 2 * (thread % 4);
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
        *reinterpret_cast<u32*>(to + 8 * n) =
            E::pack(o[4 * n + 2 * half] * inverse, o[4 * n + 2 * half + 1] * inverse);
      }
    }
  }
};

}  // namespace attune::kernel
