// The end of the backward pass: dQ from its sums, and the sums of what blocks of threads left in parts:
// gradients of sinks, of ALiBi's slopes and of a bias.
#pragma once

#include <attune/part/exact_gradient.cuh>
#include <attune/part/weigh.cuh>

namespace attune::kernel {

template <PortableSpec kSpec>
struct BackwardFinish {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  static constexpr int kThreads = threads_of(kSpec);
  static constexpr int kWidth = backward_width(kSpec);
  using G = typename BackwardShape<kSpec, kWidth, 2>::G;

  static __device__ __forceinline__ void run(const BackwardParams& p) {
    i64 tile = TilePlace::number();
    if (tile < p.f.tiles) return queries(p);
    tile -= p.f.tiles;
    if (tile < p.sink_tiles) {
      return parts(p.grad_sink + tile * p.grad_sink_stride, p.sink_parts, static_cast<int>(tile),
                   p.f.b, p.f.hq, p.f.query_blocks * kSpec.warps);
    }
    tile -= p.sink_tiles;
    if (tile < p.alibi_tiles) {
      const int h = static_cast<int>(tile) % p.f.hq, b = static_cast<int>(tile) / p.f.hq;
      const bool shared = p.alibi_tiles == p.f.hq && p.grad_alibi_b_stride == 0;
      return parts(p.grad_alibi + b * p.grad_alibi_b_stride + h * p.grad_alibi_h_stride,
                   p.alibi_parts, shared ? h : static_cast<int>(tile), shared ? p.f.b : 1, p.f.hq,
                   p.key_blocks);
    }
    tile -= p.alibi_tiles;
    if constexpr (kSpec.bias) {
      if (tile < p.bias_tiles) bias(p, tile);
    }
  }

  // The sum of `each` parts of (0, first), (1, first), ... of [count][stride][each], by one warp.
  static __device__ __forceinline__ void parts(float* to, const float* from, int first, int count,
                                               int stride, int each) {
    if (threadIdx.x >= 32) return;
    float sum = 0.0f;
    for (int b = 0; b < count; ++b) {
      const float* part = from + (static_cast<i64>(b) * stride + first) * each;
      for (int i = threadIdx.x; i < each; i += 32) sum += part[i];
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (threadIdx.x == 0) *to = sum;
  }

  static __device__ __forceinline__ void queries(const BackwardParams& p) {
    const ForwardParams& f = p.f;
    const TilePlace tile(f);
    const Sequence seq = sequence_of(f, tile.b);
    const int first = tile.block * kSpec.queries;
    for (i64 i = first; i < seq.tail; i += static_cast<i64>(f.query_blocks) * kSpec.queries) {
      for (i64 r = i; r < smaller<i64>(i + kSpec.queries, seq.tail); ++r) {
        Bits* row = QueryRows<Bits>(p.grad_q, tile.b, seq.q_start + seq.sq, tile.h).base +
                    r * p.grad_q.s_stride;
        for (int c = threadIdx.x; c < f.d; c += kThreads) row[c * p.grad_q.d_stride] = 0;
      }
    }
    if (first >= seq.sq) return;
    const i64 block = head_block(p, seq, tile.b, tile.h, tile.block, kSpec.queries);
#pragma unroll 1
    for (int column = 0; column < f.d; column += kWidth) {
      chunk(p, seq, tile, query_sums<kSpec, G>(p, block, column), column);
    }
  }

  static __device__ __forceinline__ void chunk(const BackwardParams& p, const Sequence& seq,
                                               const TilePlace& tile, const float* from,
                                               int column0) {
    constexpr int kColumns = G::kQueryColumns / 8;
    typename G::QueryGradients x;
#pragma unroll
    for (int m = 0; m < G::kQueryRows / 16; ++m) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        const float4 y = *reinterpret_cast<const float4*>(from + (m * kColumns + n) * 128);
        x[m][n][0] = y.x, x[m][n][1] = y.y, x[m][n][2] = y.z, x[m][n][3] = y.w;
      }
    }
    const QueryRows<Bits> rows(p.grad_q, tile.b, seq.q_start, tile.h);
    const int first = column0 + G::query_column0() + 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
    for (int m = 0; m < G::kQueryRows / 16; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = tile.block * kSpec.queries + G::query(m, half);
        if (i < seq.sq) {
          Bits* const row = rows(i);
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            store_pair<kSpec.element, kSpec.aligned>(row, p.grad_q.d_stride, first + 8 * n, p.f.d,
                                                     x[m][n][2 * half] * p.f.scale,
                                                     x[m][n][2 * half + 1] * p.f.scale);
          }
        }
        const u32 bad = __ballot_sync(~0u, doubtful(x, m, half));
        if (bad == 0) continue;
#pragma unroll 1
        for (int g = 0; g < 8; ++g) {
          const int again = tile.block * kSpec.queries + G::query_row0() + 16 * m + 8 * half + g;
          if ((bad >> 4 * g & 15u) == 0 || again >= seq.sq) continue;
          __syncwarp();
          write_exact_query<kSpec>(p, tile.b, tile.h, again, column0 + G::query_column0(),
                                   G::kQueryColumns);
        }
      }
    }
  }

  static __device__ __forceinline__ void bias(const BackwardParams& p, i64 tile) {
    const BiasGradient& bias = p.grad_bias;
    const i64 queries = bias.one_q != 0 ? 1 : bias.sq, keys = bias.one_k != 0 ? 1 : bias.sk;
    const i64 heads = bias.one_h != 0 ? 1 : p.f.hq, all = bias.one_b != 0 ? 1 : p.f.b;
    const i64 elements = all * heads * queries * keys;
    const i64 end = smaller<i64>((tile + 1) * kBiasSumElements, elements);
    for (i64 at = tile * kBiasSumElements + threadIdx.x; at < end; at += kThreads) {
      float sum = 0.0f;
      for (int part = 0; part < bias.parts; ++part) sum += bias.sums[part * elements + at];
      const i64 key = at % keys, row = at / keys, query = row % queries, pair = row / queries;
      store_element(bias.data,
                    pair / heads * bias.b_stride + pair % heads * bias.h_stride +
                        query * bias.q_stride + key * bias.k_stride,
                    bias.element, sum);
    }
  }
};

template <PortableSpec kSpec>
__device__ __forceinline__ void backward_finish(const BackwardParams& params) {
  BackwardFinish<kSpec>::run(params);
}

}  // namespace attune::kernel
