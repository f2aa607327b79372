// The gradient of a bias that is one and the same along some dimensions: dS summed over them.
//
// A tile is a block of queries by a block of keys of one head of one sequence (of all of them where that
// dimension is summed over), and walks over what it sums, S and dP anew each time: two products of five,
// for which no sum is shared and no order matters. Where that leaves most of the GPU idle, a tile is cut
// in parts, which backward_finish.cuh adds up.
//
// Shared memory: backward_portable_layout.h. Little of it, so that several blocks of threads hide each
// other's loads.
#pragma once

#include <attune/kernel/backward_portable_layout.h>

#include <attune/part/weigh.cuh>

namespace attune::kernel {

template <PortableSpec kSpec>
struct BackwardBias {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  static constexpr int kWidth = backward_width(kSpec), kThreads = threads_of(kSpec);
  using W = typename BackwardShape<kSpec, kWidth, kSpec.head_dim == 0 ? 2 : 4>::W;
  using P = Products<kSpec.arch, W, false>;
  static constexpr BiasShared kShared = backward_bias_shared(kSpec);

  // What a tile sums over, and where it stands: [sequences][heads][blocks of queries][blocks of keys].
  struct Walk {
    int part, b, h, query, key;  // the tile; 0 where it is summed over
    int heads, queries, keys;    // to walk over; 1 where it is not
    i64 steps;
    __device__ __forceinline__ Walk(const BackwardParams& p, i64 tile) {
      const BiasGradient& bias = p.grad_bias;
      const auto take = [&](bool one, int count, int& own, int& walk) {
        own = one ? 0 : static_cast<int>(tile % count);
        walk = one ? count : 1;
        if (!one) tile /= count;
      };
      part = static_cast<int>(tile % bias.parts);
      tile /= bias.parts;
      int sequences = 1;
      // Blocks of the gradient, which may be larger than what has queries and keys.
      const int own_keys = (bias.sk + kSpec.keys - 1) / kSpec.keys;
      const int own_queries = (bias.sq + kSpec.queries - 1) / kSpec.queries;
      take(bias.one_k != 0, bias.one_k != 0 ? p.key_blocks : own_keys, key, keys);
      take(bias.one_q != 0, bias.one_q != 0 ? p.f.query_blocks : own_queries, query, queries);
      take(bias.one_h != 0, p.f.hq, h, heads);
      take(bias.one_b != 0, p.f.b, b, sequences);
      steps = static_cast<i64>(sequences) * heads * queries * keys;
    }
  };

  static __device__ __forceinline__ void run(const BackwardParams& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    const u32 memory = shared_address(shared);
    if (TilePlace::number() >= p.grad_bias.tiles) return;
    const Walk walk(p, TilePlace::number());
    typename W::Scores sum;
    clear_fragments(sum);
#pragma unroll 1
    for (i64 step = walk.part; step < walk.steps; step += p.grad_bias.parts) {
      i64 rest = step;
      const int key = walk.key + static_cast<int>(rest % walk.keys);
      rest /= walk.keys;
      const int query = walk.query + static_cast<int>(rest % walk.queries);
      rest /= walk.queries;
      const int h = walk.h + static_cast<int>(rest % walk.heads);
      add(p, memory, walk.b + static_cast<int>(rest / walk.heads), h, query * kSpec.queries,
          key * kSpec.keys, sum);
    }
    write(p, memory, walk, sum);
  }

  // dS of one tile of one head.
  static __device__ __forceinline__ void add(const BackwardParams& p, u32 memory, int b, int h,
                                             int i, int j, typename W::Scores& sum) {
    const ForwardParams& f = p.f;
    const Sequence seq = sequence_of(f, b);
    if (i >= seq.sq || j >= seq.sk) return;
    const Range queries = Diagonals(f, seq).queries_of(seq, j, kSpec.keys);
    if (queries.begin >= i + kSpec.queries || queries.end <= i) return;
    Weigher<kSpec, W> weigher(p, seq, b, h, i, j, memory + kShared.rows);
    __syncthreads();
    weigher.copy_rows(memory + kShared.rows, p,
                      head_block(p, seq, b, h, i / kSpec.queries, kSpec.queries));
    const Tiles scores{p.f.q, p.f.k, p.f.d, memory};
    const Tiles gradients{p.grad_o, p.f.v, p.f.dv,
                          memory + (kSpec.head_dim == 0 ? 0 : kShared.pair)};
    if constexpr (kSpec.head_dim != 0) {
      scores.load(p, seq, b, h, i, j, 0);
      commit_copies();
      gradients.load(p, seq, b, h, i, j, 0);
      commit_copies();
    }
    weigher.begin();
    typename W::Scores s, dp;
    if constexpr (kSpec.head_dim != 0) {
      wait_for_copies<1>();
      __syncthreads();
      scores.multiply(s);
    } else {
      scores.multiply_chunks(p, seq, b, h, i, j, s);
      commit_copies();  // the rows' facts, where d is 0
      wait_for_copies<0>();
      __syncthreads();
    }
    weigher.powers(s, false);
    if constexpr (kSpec.head_dim != 0) {
      wait_for_copies<0>();
      __syncthreads();
      gradients.multiply(dp);
    } else {
      gradients.multiply_chunks(p, seq, b, h, i, j, dp);
    }
    weigher.differences(s, dp);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[m][n][c] += s[m][n][c];
      }
    }
  }

  // The operands of S or dP, a tile of each at `memory`.
  struct Tiles {
    const Operand &x, &y;
    int d;
    u32 memory;

    __device__ __forceinline__ void load(const BackwardParams& p, const Sequence& seq, int b, int h,
                                         int i, int j, int column) const {
      QueryRows<const Bits> rows(x, b, seq.q_start, h);
      rows.base += column * x.d_stride;
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::QTile, W::kQueries, kWidth>(
          memory, rows, x.d_stride, d - column, i, seq.sq);
      const Bits* first =
          first_key_row<Bits, false>(p.f, y, b, seq.k_start, h / p.f.group) + column * y.d_stride;
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::KTile, W::kKeys, kWidth>(
          memory + kShared.keys, KeyRows<Bits, false>(p.f, y, first, b), y.d_stride, d - column, j,
          seq.sk);
    }
    __device__ __forceinline__ void multiply(typename W::Scores& out, bool clear = true) const {
      P(memory).scores(out, memory + kShared.keys, clear);
    }
    __device__ __forceinline__ void multiply_chunks(const BackwardParams& p, const Sequence& seq,
                                                    int b, int h, int i, int j,
                                                    typename W::Scores& out) const {
      clear_fragments(out);
#pragma unroll 1
      for (int column = 0; column < d; column += kWidth) {
        __syncthreads();
        load(p, seq, b, h, i, j, column);
        commit_copies();
        wait_for_copies<0>();
        __syncthreads();
        multiply(out, false);
      }
    }
  };

  // The sums of a tile, over its queries and keys too where they share an element.
  static __device__ __forceinline__ void write(const BackwardParams& p, u32 memory,
                                               const Walk& walk, typename W::Scores& sum) {
    const BiasGradient& bias = p.grad_bias;
    constexpr int kSharers = W::kSharers, kRowWarps = kSpec.warps / kSharers;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const bool one_q = bias.one_q != 0, one_k = bias.one_k != 0;
    if (!one_q && !one_k) {
      BiasTile<W>::for_each_score(sum, [&](float& x, int m, int half, int n, int e) {
        put(p, walk, walk.query * kSpec.queries + thread_row<W>(m, half),
            walk.key * kSpec.keys + W::half() * W::kWarpKeys + 16 * n + 4 * t + e, x);
      });
      return;
    }
    __syncthreads();
    // One number for each row and warp that shares it, or each key and warp that shares it.
    if (one_k) {
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float x = 0.0f;
#pragma unroll
          for (int n = 0; n < W::kKeyTiles; ++n) x += sum[m][n][2 * half] + sum[m][n][2 * half + 1];
          x += __shfl_xor_sync(~0u, x, 1);
          x += __shfl_xor_sync(~0u, x, 2);
          if (t == 0) {
            const int at = W::half() * kSpec.queries + thread_row<W>(m, half);
            store_shared(memory + at * 4, __float_as_uint(x));
          }
        }
      }
    } else {
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float x = 0.0f;
#pragma unroll
          for (int m = 0; m < W::kRowTiles; ++m) x += sum[m][n][e] + sum[m][n][2 + e];
          x += __shfl_xor_sync(~0u, x, 4);
          x += __shfl_xor_sync(~0u, x, 8);
          x += __shfl_xor_sync(~0u, x, 16);
          if (g == 0) {
            const int key = W::half() * W::kWarpKeys + n / 2 * 16 + 4 * t + n % 2 * 2 + e;
            const int at = threadIdx.x / (32 * kSharers) * kSpec.keys + key;
            store_shared(memory + at * 4, __float_as_uint(x));
          }
        }
      }
    }
    __syncthreads();
    const int count = one_k ? kSpec.queries : kSpec.keys, shares = one_k ? kSharers : kRowWarps;
    const auto total = [&](int at) {
      float x = 0.0f;
      for (int share = 0; share < shares; ++share) {
        x += __uint_as_float(load_shared(memory + (share * count + at) * 4));
      }
      return x;
    };
    if (one_q && one_k) {
      if (threadIdx.x != 0) return;
      float x = 0.0f;
      for (int at = 0; at < count; ++at) x += total(at);
      put(p, walk, 0, 0, x);
      return;
    }
    for (int at = threadIdx.x; at < count; at += kThreads) {
      const int i = one_k ? walk.query * kSpec.queries + at : 0;
      put(p, walk, i, one_k ? 0 : walk.key * kSpec.keys + at, total(at));
    }
  }

  static __device__ __forceinline__ void put(const BackwardParams& p, const Walk& walk, int i,
                                             int j, float x) {
    const BiasGradient& bias = p.grad_bias;
    const i64 queries = bias.one_q != 0 ? 1 : bias.sq, keys = bias.one_k != 0 ? 1 : bias.sk;
    if (i >= queries || j >= keys) return;
    if (bias.sums == nullptr) {
      store_element(
          bias.data,
          walk.b * bias.b_stride + walk.h * bias.h_stride + i * bias.q_stride + j * bias.k_stride,
          bias.element, x);
      return;
    }
    const i64 heads = bias.one_h != 0 ? 1 : p.f.hq, all = bias.one_b != 0 ? 1 : p.f.b;
    const i64 row = (walk.part * all + walk.b) * heads + walk.h;
    bias.sums[(row * queries + i) * keys + j] = x;
  }
};

template <PortableSpec kSpec>
__device__ __forceinline__ void backward_bias(const BackwardParams& params) {
  BackwardBias<kSpec>::run(params);
}

}  // namespace attune::kernel
