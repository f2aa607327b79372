// What the backward pass needs of each query before any key: RowFacts, and zeros where dQ is summed.
// delta_i = sum of dO_i o O_i, less the gradient of the LSE (Dao et al., "FlashAttention", NeurIPS 2022,
// B.2; the LSE depends on each score by its P). Also the sink's gradient: minus its P times delta.
//
// Eight lanes a row. A tile is a block of queries of one head.
#pragma once

#include <attune/part/result.cuh>
#include <attune/part/weigh.cuh>

namespace attune::kernel {

template <PortableSpec kSpec>
struct BackwardRows {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  static constexpr int kThreads = threads_of(kSpec), kLanes = 8,
                       kPerChunk = 16 / bytes_of(kSpec.element);

  static __device__ __forceinline__ void run(const BackwardParams& p) {
    const ForwardParams& f = p.f;
    if (TilePlace::number() >= f.tiles) return;
    const TilePlace tile(f);
    const Sequence seq = sequence_of(f, tile.b);
    if (p.turns != nullptr && threadIdx.x == 0 && TilePlace::number() == 0) p.turns[0] = 0;
    const int first = tile.block * kSpec.queries;
    float sink = 0.0f;
    if (first < seq.sq) {
      const i64 block = head_block(p, seq, tile.b, tile.h, tile.block, kSpec.queries);
      clear(p, block);
#pragma unroll 1
      for (int row = threadIdx.x / kLanes; row < kSpec.queries; row += kThreads / kLanes) {
        // All lanes of a warp take part in every sum.
        sink += one(p, seq, tile, first + row, p.rows + block * kSpec.queries + row);
      }
    }
    if (p.sink_parts != nullptr) write_sink(p, tile, sink);
  }

  static __device__ __forceinline__ void clear(const BackwardParams& p, i64 block) {
    const i64 floats = static_cast<i64>(kSpec.queries) * sum_columns<kSpec>(p.f.d);
    float* const sums = p.grad_q_sum + block * floats;
    const u32 zeros[4] = {0, 0, 0, 0};
    for (i64 at = threadIdx.x * 4; at < floats; at += kThreads * 4)
      store_global(sums + at, zeros, true);
    if (p.turns != nullptr && threadIdx.x == 0) p.turns[1 + block] = 0;
  }

  // Row i, if there is one; what it adds to the sink's gradient, in one of its lanes.
  static __device__ __forceinline__ float one(const BackwardParams& p, const Sequence& seq,
                                              const TilePlace& tile, int i, RowFacts* facts) {
    const ForwardParams& f = p.f;
    const bool there = i < seq.sq;
    const int lane = threadIdx.x % kLanes;
    float delta = 0.0f;
    if (there) {
      const Bits* o = QueryRows<const Bits>(f.o, tile.b, seq.q_start, tile.h)(i);
      const Bits* grad = QueryRows<const Bits>(p.grad_o, tile.b, seq.q_start, tile.h)(i);
      for (int c = lane * kPerChunk; c < f.dv; c += kLanes * kPerChunk) {
        if constexpr (kSpec.aligned) {
          u32 x[4], y[4];
          load_global(x, o + c);
          load_global(y, grad + c);
#pragma unroll
          for (int e = 0; e < kPerChunk; ++e) delta += element(x, e) * element(y, e);
        } else {
          for (int e = c; e < smaller(c + kPerChunk, f.dv); ++e) {
            delta += E::to_float(o[e * f.o.d_stride]) * E::to_float(grad[e * p.grad_o.d_stride]);
          }
        }
      }
    }
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      delta += __shfl_xor_sync(~0u, delta, distance);
    }
    if (lane != 0) return 0.0f;
    if (!there) {
      *facts = {infinity(), 0.0f};
      return 0.0f;
    }
    float lse = *lse_at(f, seq, tile.b, tile.h, i);
    if (p.grad_lse != nullptr) {
      const i64 row = i + (f.lse.packed != 0 ? seq.q_start : 0);
      delta -= p.grad_lse[tile.b * p.grad_lse_b_stride + tile.h * p.grad_lse_h_stride +
                          row * p.grad_lse_s_stride];
    }
    if (lse == -infinity()) {  // nothing is attended to: no weights, whatever dO holds
      lse = infinity();
      delta = 0.0f;
    }
    *facts = {lse, delta};
    if (p.sink_parts == nullptr) return 0.0f;
    return -exp2_fast((f.sink[tile.h * f.sink_stride] - lse) * kLog2E) * delta;
  }

  static __device__ __forceinline__ float element(const u32 (&r)[4], int e) {
    if constexpr (kPerChunk == 4) {
      return __uint_as_float(r[e]);
    } else {
      return E::to_float(static_cast<Bits>(r[e / 2] >> e % 2 * 16));
    }
  }

  // One number a warp.
  static __device__ __forceinline__ void write_sink(const BackwardParams& p, const TilePlace& tile,
                                                    float sum) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (threadIdx.x % 32 != 0) return;
    const i64 block = (static_cast<i64>(tile.b) * p.f.hq + tile.h) * p.f.query_blocks + tile.block;
    p.sink_parts[block * kSpec.warps + threadIdx.x / 32] = sum;
  }
};

template <PortableSpec kSpec>
__device__ __forceinline__ void backward_rows(const BackwardParams& params) {
  BackwardRows<kSpec>::run(params);
}

}  // namespace attune::kernel
