// Attention backward for head dims without a bound.
//
// Schedule. As backward_portable.cuh, but rows pass through shared memory in chunks of 64 columns: S and
// dP are summed over the chunks of d and dv, then chunk by chunk dV, dK and dQ are added to. dK and dV
// lie in global memory in float32; each thread reads only what it wrote itself, so they need no barrier.
//
// Sums of a tile of keys: [dK: chunks of d][dV: chunks of dv][fragments][threads][4] floats.
#pragma once

#include <attune/part/owned_keys.cuh>

namespace attune::kernel {

template <PortableSpec kSpec>
struct WideBackward {
  // Sums of any length: the shortest that are cut.
  using Shape = BackwardShape<kSpec, kBackwardChunk, 2>;
  using W = typename Shape::W;
  using G = typename Shape::G;
  using Tile = OwnedKeys<kSpec, W, G>;
  static constexpr BackwardShared kShared = backward_portable_shared(kSpec);
  static constexpr int kThreads = threads_of(kSpec);

  static __device__ __forceinline__ void run(const BackwardParams& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    const u32 memory = shared_address(shared);
    Tile tile(p, shared);
    if (!tile.begin()) return;
    const ForwardParams& f = p.f;
    const int turns = tile.turns();
    Turn turn = tile.first_turn();
#pragma unroll 1
    for (int left = turns; left > 0; --left) {
      weigh(p, tile, turn, memory);
      tile.await_turn(turn);  // there are barriers before its sums
#pragma unroll 1
      for (int column = 0; column < larger(f.d, f.dv); column += kBackwardChunk) {
        __syncthreads();
        load(p, tile, turn, column, memory, false);
        wait_for_copies<0>();
        __syncthreads();
        if (column < f.dv) {
          typename G::KeyGradients dv;
          load_sums(sums_of(p, tile, column, true), left == turns, dv);
          Tile::D::add_over_queries(dv, memory, kShared.p, memory + kShared.o);
          store_sums(sums_of(p, tile, column, true), dv);
        }
        if (column < f.d) {
          typename G::KeyGradients dk;
          load_sums(sums_of(p, tile, column, false), left == turns, dk);
          Tile::D::add_over_queries(dk, memory, kShared.s, memory + kShared.q);
          store_sums(sums_of(p, tile, column, false), dk);
          typename G::QueryGradients dq;
          clear_fragments(dq);
          Tile::D::add_over_keys(dq, memory + kShared.s, memory + kShared.k);
          tile.add_queries(turn, column, dq);
        }
      }
      tile.finish_head(turn);
      turn = tile.after(turn);
      __syncthreads();
      tile.pass_turn_before(turn);
    }
#pragma unroll 1
    for (int column = 0; column < larger(f.d, f.dv); column += kBackwardChunk) {
      typename G::KeyGradients x;
      if (column < f.d) {
        load_sums(sums_of(p, tile, column, false), turns == 0, x);
        tile.write(p.grad_k, f.d, column, x, f.scale, false);
      }
      if (column < f.dv) {
        load_sums(sums_of(p, tile, column, true), turns == 0, x);
        tile.write(p.grad_v, f.dv, column, x, kSpec.dropout ? f.dropout.keep_scale : 1.0f, true);
      }
    }
  }

  // P and dS of one turn, to shared memory.
  static __device__ __forceinline__ void weigh(const BackwardParams& p, Tile& tile,
                                               const Turn& turn, u32 memory) {
    typename W::Scores s, dp;
    clear_fragments(s);
    clear_fragments(dp);
    tile.load_facts(memory + kShared.rows, turn);  // the last turn's were read before its barriers
#pragma unroll 1
    for (int column = 0; column < larger(p.f.d, p.f.dv); column += kBackwardChunk) {
      __syncthreads();
      load(p, tile, turn, column, memory, true);
      wait_for_copies<0>();
      __syncthreads();
      if (column < p.f.d) {
        typename Tile::P(memory + kShared.q).scores(s, memory + kShared.k, false);
      }
      if (column < p.f.dv) {
        typename Tile::P(memory + kShared.o).scores(dp, memory + kShared.v, false);
      }
    }
    commit_copies();  // the rows' facts, where d and dv are 0
    wait_for_copies<0>();
    __syncthreads();
    const auto copy = [](typename W::Scores& to, const typename W::Scores& from) {
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
        for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
          for (int c = 0; c < 4; ++c) to[m][n][c] = from[m][n][c];
        }
      }
    };
    tile.weigh(
        turn, memory + kShared.rows, memory + kShared.p, memory + kShared.s,
        [&](typename W::Scores& x) { copy(x, s); }, [&](typename W::Scores& x) { copy(x, dp); });
  }

  // The chunks that start at a column; V only for dP.
  static __device__ __forceinline__ void load(const BackwardParams& p, const Tile& tile,
                                              const Turn& turn, int column, u32 memory,
                                              bool values) {
    const ForwardParams& f = p.f;
    if (column < f.d) {
      tile.load_queries(f.q, tile.facts.q, memory + kShared.q, f.d, turn, column);
      tile.load_keys(f.k, memory + kShared.k, f.d, column);
    }
    if (column < f.dv) {
      tile.load_queries(p.grad_o, tile.facts.grad_o, memory + kShared.o, f.dv, turn, column);
      if (values) tile.load_keys(f.v, memory + kShared.v, f.dv, column);
    }
    commit_copies();
  }

  // This thread's part of a chunk of dK or dV.
  static __device__ __forceinline__ float* sums_of(const BackwardParams& p, const Tile& tile,
                                                   int column, bool values) {
    const i64 dk = sum_columns<kSpec>(p.f.d), dv = sum_columns<kSpec>(p.f.dv);
    const KeyPlace& at = tile.facts.place;
    const i64 number = (static_cast<i64>(at.b) * p.f.hkv + at.hkv) * p.key_blocks + at.block;
    return p.key_sum + (number * (dk + dv) + (values ? dk : 0) + column) * kSpec.keys +
           threadIdx.x * 4;
  }
  static __device__ __forceinline__ void load_sums(const float* from, bool zero,
                                                   typename G::KeyGradients& x) {
    constexpr int kColumns = G::kKeyColumns / 8;
#pragma unroll
    for (int m = 0; m < G::kKeyRows / 16; ++m) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        float4 y = make_float4(0, 0, 0, 0);
        if (!zero) y = *reinterpret_cast<const float4*>(from + (m * kColumns + n) * kThreads * 4);
        x[m][n][0] = y.x, x[m][n][1] = y.y, x[m][n][2] = y.z, x[m][n][3] = y.w;
      }
    }
  }
  static __device__ __forceinline__ void store_sums(float* to, const typename G::KeyGradients& x) {
    constexpr int kColumns = G::kKeyColumns / 8;
#pragma unroll
    for (int m = 0; m < G::kKeyRows / 16; ++m) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        *reinterpret_cast<float4*>(to + (m * kColumns + n) * kThreads * 4) =
            make_float4(x[m][n][0], x[m][n][1], x[m][n][2], x[m][n][3]);
      }
    }
  }
};

}  // namespace attune::kernel
