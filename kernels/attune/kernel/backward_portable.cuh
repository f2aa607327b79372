// Attention backward on tensor cores: dK and dV of a block of keys, and its part of dQ.
//
// Schedule. A block of threads owns `keys` keys of one key head; dK and dV stay in registers while it
// walks over the queries, of all heads of the group, that attend to some of them. Per block of
// queries: S = Q K^T, P = 2^(S - LSE), dP = dO V^T, dS = P o (dP - delta); P and dS go through shared
// memory as 16-bit elements; dV += P^T dO, dK += dS^T Q, and dS K is added to dQ's float32 accumulator
// in global memory. Warps share S by rows and keys, dK and dV by keys and columns, dQ by queries and
// columns: 32 rows and more a warp, so that shared memory keeps up with the tensor cores.
//
// Shared memory: [K][V][2 x Q][2 x dO][P][dS].
#pragma once

#include <attune/part/gradient.cuh>
#include <attune/part/mask.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// Of a row: log2(e) * LSE (+inf where nothing is attended to, so that P is 0), and delta.
struct RowFacts {
  float lse2, delta;
};

struct BackwardParams {
  ForwardParams f;
  Operand grad_o, grad_q, grad_k, grad_v;
  const RowFacts* rows;  // [b, hq, sq]
  float* grad_q_sum;     // [b, hq, query blocks][warps][fragments][lanes][4]
  int key_blocks;
};

template <PortableSpec kSpec>
struct BoundedBackward {
  using Bits = typename Elements<kSpec.element>::Bits;
  static constexpr int kSharers = kSpec.keys / (kSpec.keys * kSpec.queries / kSpec.warps / 32);
  using W =
      WarpShape<kSpec.element, kSpec.queries, kSpec.keys, kSpec.warps, kSpec.head_dim, kSharers, 1>;
  using G = GradientShape<kSpec.element, kSpec.queries, kSpec.keys, kSpec.warps, kSpec.head_dim>;
  static constexpr int kThreads = threads_of(kSpec);
  static constexpr int kRow = kSpec.head_dim * bytes_of(kSpec.element);
  static constexpr int kKeyBytes = kSpec.keys * kRow, kQueryBytes = kSpec.queries * kRow;
  static constexpr int kWeightBytes = kSpec.queries * kSpec.keys * bytes_of(kSpec.element);

  static __device__ __forceinline__ void run(const BackwardParams& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    const u32 k_tile = shared_address(shared), v_tile = k_tile + kKeyBytes;
    const u32 q_tile = v_tile + kKeyBytes, o_tile = q_tile + 2 * kQueryBytes;
    const u32 p_tile = o_tile + 2 * kQueryBytes, s_tile = p_tile + kWeightBytes;
    const ForwardParams& f = p.f;
    const int tile = blockIdx.x, block = tile % p.key_blocks;
    const int pair = tile / p.key_blocks, hkv = pair % f.hkv, b = pair / f.hkv;
    const Sequence seq = sequence_of(f, b);
    const int j = block * W::kKeys;
    if (j >= seq.sk) return;

    const auto load_keys = [&](const Operand& x, u32 to, int d) {
      const Bits* first = first_key_row<Bits, kSpec.general>(f, x, b, seq.k_start, hkv);
      const KeyRows<Bits, kSpec.general> rows(f, x, first, b);
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::KTile, W::kKeys, W::kWidth>(
          to, rows, x.d_stride, d, j, seq.sk);
    };
    load_keys(f.k, k_tile, f.d);
    load_keys(f.v, v_tile, f.dv);

    // Queries [first, end) attend to some of these keys.
    const i64 diagonal = f.bottom_right != 0 ? static_cast<i64>(seq.sk) - seq.sq : 0;
    const int first = static_cast<int>(clamp<i64>(j - (diagonal + f.mask_high) + 1, 0, seq.sq)) /
                      W::kQueries * W::kQueries;
    const int end = static_cast<int>(clamp<i64>(j + W::kKeys - (diagonal + f.mask_low), 0, seq.sq));
    const int blocks = end > first ? (end - first + W::kQueries - 1) / W::kQueries : 0;

    typename G::KeyGradients dk, dv;
    clear_fragments(dk);
    clear_fragments(dv);
    const auto load_queries = [&](int turn) {
      const int h = hkv * f.group + turn / blocks, i = first + turn % blocks * W::kQueries;
      const u32 stage = (turn & 1) * kQueryBytes;
      const QueryRows<const Bits> q(f.q, b, seq.q_start, h), o(p.grad_o, b, seq.q_start, h);
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::QTile, W::kQueries, W::kWidth>(
          q_tile + stage, q, f.q.d_stride, f.d, i, seq.sq);
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::QTile, W::kQueries, W::kWidth>(
          o_tile + stage, o, p.grad_o.d_stride, f.dv, i, seq.sq);
      commit_copies();
    };
    if (blocks > 0) load_queries(0);
#pragma unroll 1
    for (int turn = 0; turn < blocks * f.group; ++turn) {
      const int h = hkv * f.group + turn / blocks, i = first + turn % blocks * W::kQueries;
      const u32 stage = (turn & 1) * kQueryBytes;
      wait_for_copies<0>();
      __syncthreads();
      if (turn + 1 < blocks * f.group) load_queries(turn + 1);
      weigh(p, seq, b, h, i, j, q_tile + stage, o_tile + stage, k_tile, v_tile, p_tile, s_tile);
      __syncthreads();
      add_over_queries<G, typename W::QTile>(dv, p_tile, o_tile + stage);
      add_over_queries<G, typename W::QTile>(dk, s_tile, q_tile + stage);
      typename G::QueryGradients dq;
      clear_fragments(dq);
      add_over_keys<G, typename W::KTile>(dq, s_tile, k_tile);
      add_queries(p, (static_cast<i64>(b) * f.hq + h) * f.query_blocks + i / W::kQueries, dq);
    }
    write(p.grad_k, seq, b, hkv, j, f.d, dk, f.scale);
    write(p.grad_v, seq, b, hkv, j, f.dv, dv, f.dropout.keep_scale);
  }

  // P and dS of one block, to shared memory.
  static __device__ __forceinline__ void weigh(const BackwardParams& p, const Sequence& seq, int b,
                                               int h, int i, int j, u32 q_tile, u32 o_tile,
                                               u32 k_tile, u32 v_tile, u32 p_tile, u32 s_tile) {
    const ForwardParams& f = p.f;
    RowFacts rows[W::kRowTiles][2];
    const RowFacts* const at = p.rows + (static_cast<i64>(b) * f.hq + h) * f.sq;
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = i + thread_row<W>(m, half);
        rows[m][half] = row < seq.sq ? at[row] : RowFacts{infinity(), 0.0f};
      }
    }
    typename W::Scores s, dp;
    const int key = j + W::half() * W::kWarpKeys;
    TensorProducts<W, false>(q_tile).scores(s, k_tile);
    const MaskSides sides(f, seq, i);
    const int last = smaller(W::first_row() + W::kWarpRows, seq.sq - i) - 1;
    if (!(key >= sides.begin(last) && key + W::kWarpKeys <= sides.end(W::first_row()))) {
      apply_mask<W>(s, sides, key);
    }
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          s[m][n][c] = exp2_fast(s[m][n][c] * f.scale_log2 - rows[m][c / 2].lse2);
        }
      }
    }
    store_weights<G, W>(p_tile, s);
    TensorProducts<W, false>(o_tile).scores(dp, v_tile);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) s[m][n][c] *= dp[m][n][c] - rows[m][c / 2].delta;
      }
    }
    store_weights<G, W>(s_tile, s);
  }

  static __device__ __forceinline__ void add_queries(const BackwardParams& p, i64 block,
                                                     const typename G::QueryGradients& dq) {
    constexpr int kFragments = G::kQueryRows / 16 * (G::kQueryColumns / 8);
    float* to = p.grad_q_sum + (block * kThreads + threadIdx.x / 32 * 32) * (kFragments * 4) +
                threadIdx.x % 32 * 4;
#pragma unroll
    for (int m = 0; m < G::kQueryRows / 16; ++m) {
#pragma unroll
      for (int n = 0; n < G::kQueryColumns / 8; ++n) {
        add_global(to + (m * (G::kQueryColumns / 8) + n) * 128, dq[m][n]);
      }
    }
  }

  static __device__ __forceinline__ void write(const Operand& x, const Sequence& seq, int b, int h,
                                               int j, int d, const typename G::KeyGradients& from,
                                               float factor) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    Bits* const head =
        static_cast<Bits*>(x.data) + b * x.b_stride + seq.k_start * x.s_stride + h * x.h_stride;
#pragma unroll
    for (int m = 0; m < G::kKeyRows / 16; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int key = j + G::key_row0() + 16 * m + key_row(g, half);
        if (key >= seq.sk) continue;
#pragma unroll
        for (int n = 0; n < G::kKeyColumns / 8; ++n) {
          const int column = G::key_column0() + 8 * n + 2 * t;
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            if (column + e >= d) continue;
            head[key * x.s_stride + (column + e) * x.d_stride] =
                Elements<kSpec.element>::from_float(from[m][n][2 * half + e] * factor);
          }
        }
      }
    }
  }
};

}  // namespace attune::kernel
