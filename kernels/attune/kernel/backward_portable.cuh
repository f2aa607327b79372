// Attention backward on tensor cores of any GPU from sm_75 on (and on none where a type has none): dK and
// dV of a block of keys, and its part of dQ.
//
// Kernels, in the order of their launches: rows (delta and the LSE of each query, backward_rows.cuh),
// keys (here), bias (backward_bias.cuh), finish (backward_finish.cuh).
//
// Schedule. A block of threads owns `keys` keys of one key head; dK and dV stay in registers while it
// walks over the queries, of all heads of the group, that attend to some of them. Per block of
// queries: S = Q K^T, P = 2^(S - LSE), dP = dO V^T, dS = P o (dP - delta); P and dS go through shared
// memory; dV += P^T dO, dK += dS^T Q, and dS K is added to dQ's float32 sums in global memory. Warps
// share S by rows and keys, dK and dV by keys and columns, dQ by queries and columns: 32 rows and more
// a warp, so that shared memory keeps up with the tensor cores.
//
// Order. Sums in global memory depend on who comes first. When the same bits are asked for, blocks of
// threads draw their tile by number, and for each block of queries one waits until all with a smaller
// number (and later keys) that meet it have added; those have been drawn before, so they never wait for
// it in turn.
//
// Shared memory: backward_portable_layout.h. Registers of a thread: dK and dV: 2 * keys * head_dim /
// threads floats; S and dP: 2 * queries * keys / threads.
#pragma once

#include <attune/kernel/backward_bias.cuh>
#include <attune/kernel/backward_finish.cuh>
#include <attune/kernel/backward_portable_wide.cuh>
#include <attune/kernel/backward_rows.cuh>
#include <attune/part/owned_keys.cuh>

namespace attune::kernel {

template <PortableSpec kSpec>
struct BoundedBackward {
  using Shape = BackwardShape<kSpec, kSpec.head_dim, 2>;
  using W = typename Shape::W;
  using G = typename Shape::G;
  using Tile = OwnedKeys<kSpec, W, G>;
  static constexpr BackwardShared kShared = backward_portable_shared(kSpec);

  static __device__ __forceinline__ void run(const BackwardParams& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    const u32 memory = shared_address(shared);
    Tile tile(p, shared);
    if (!tile.begin()) return;
    const ForwardParams& f = p.f;

    tile.load_keys(f.k, memory + kShared.k, f.d);
    tile.load_keys(f.v, memory + kShared.v, f.dv);
    int stage = 0;
    const auto load_queries = [&](const Turn& turn, int stage) {
      tile.load_queries(f.q, tile.facts.q, memory + kShared.q + stage * kShared.query_bytes, f.d,
                        turn);
      tile.load_queries(p.grad_o, tile.facts.grad_o,
                        memory + kShared.o + stage * kShared.query_bytes, f.dv, turn);
      tile.load_facts(memory + kShared.rows + stage * kShared.row_bytes, turn);
      commit_copies();
    };
    Turn turn = tile.first_turn();
    int left = tile.turns();
    if (left > 0) load_queries(turn, stage);

    typename G::KeyGradients dk, dv;
    clear_fragments(dk);
    clear_fragments(dv);
#pragma unroll 1
    for (; left > 0; --left) {
      const u32 q_tile = memory + kShared.q + stage * kShared.query_bytes;
      const u32 o_tile = q_tile + kShared.o - kShared.q;
      const u32 rows = memory + kShared.rows + stage * kShared.row_bytes;
      if constexpr (kSpec.stages > 1) stage ^= 1;
      wait_for_copies<0>();
      __syncthreads();
      if constexpr (kSpec.stages > 1) {
        if (left > 1) load_queries(tile.after(turn), stage);
      }
      tile.pass_turn_before(turn);
      tile.weigh(
          turn, rows, memory + kShared.p, memory + kShared.s,
          [&](typename W::Scores& s) { typename Tile::P(q_tile).scores(s, memory + kShared.k); },
          [&](typename W::Scores& dp) { typename Tile::P(o_tile).scores(dp, memory + kShared.v); });
      tile.await_turn(turn);
      __syncthreads();
      {
        typename G::QueryGradients dq;
        clear_fragments(dq);
        Tile::D::add_over_keys(dq, memory + kShared.s, memory + kShared.k);
        tile.add_queries(turn, 0, dq);
      }
      Tile::D::add_over_queries(dv, memory, kShared.p, o_tile);
      Tile::D::add_over_queries(dk, memory, kShared.s, q_tile);
      if constexpr (kSpec.stages == 1) {
        __syncthreads();
        if (left > 1) load_queries(tile.after(turn), stage);
      }
      tile.finish_head(turn);
      turn = tile.after(turn);
    }
    wait_for_copies<0>();
    if (p.turns != nullptr) {
      __syncthreads();
      tile.pass_turn_before(turn);
    }
    tile.write(p.grad_k, f.d, 0, dk, f.scale, false);
    tile.write(p.grad_v, f.dv, 0, dv, kSpec.dropout ? f.dropout.keep_scale : 1.0f, true);
  }
};

template <PortableSpec kSpec>
__device__ __forceinline__ void backward_keys(const BackwardParams& params) {
  if constexpr (kSpec.head_dim == 0) {
    WideBackward<kSpec>::run(params);
  } else {
    BoundedBackward<kSpec>::run(params);
  }
}

}  // namespace attune::kernel
