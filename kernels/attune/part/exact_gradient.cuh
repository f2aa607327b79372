// Gradients that are computed again, pair by pair, without the pairs that are masked out: rows of dQ, dK
// and dV that are not finite, since a value that is NaN or infinite met them, perhaps only as 0 * NaN
// of a masked key, or since a 16-bit dS had no room for it. Rare, so it is written for size.
#pragma once

#include <attune/part/dropout_stream.cuh>
#include <attune/part/key_place.cuh>
#include <attune/part/score.cuh>
#include <attune/part/shared_tile.cuh>

namespace attune::kernel {

// Pairs of one head by a whole warp. Lanes share the elements of a dot product, then the columns.
template <PortableSpec kSpec>
struct ExactPairs {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  static constexpr bool kTerms = kSpec.bias || kSpec.general;
  const BackwardParams& p;
  const Sequence& seq;
  int b, h;
  ScoreTerms terms;

  __device__ __forceinline__ ExactPairs(const BackwardParams& p, const Sequence& seq, int b, int h)
      : p(p), seq(seq), b(b), h(h), terms(p.f, seq, b, h, kSpec.bias, kSpec.general) {}

  [[nodiscard]] __device__ __forceinline__ const Bits* query(const Operand& x, int i) const {
    return QueryRows<const Bits>(x, b, seq.q_start, h)(i);
  }
  [[nodiscard]] __device__ __forceinline__ const Bits* key(const Operand& x, int j) const {
    return first_key_row<Bits, false>(p.f, x, b, seq.k_start, h / p.f.group) + j * x.s_stride;
  }

  static __device__ __forceinline__ float dot(const Bits* x, i64 x_stride, const Bits* y,
                                              i64 y_stride, int d) {
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < d; c += 32) {
      sum += E::to_float(x[c * x_stride]) * E::to_float(y[c * y_stride]);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    return sum;
  }

  // What dO_i and q_i count for in dV_j and dK_j; false when the pair is masked out.
  __device__ __forceinline__ bool weigh(int i, int j, float& weight, float& ds) const {
    const float bias = terms.bias_kind != BiasKind::none ? terms.bias_at(i, j) : 0.0f;
    if (bias == -infinity()) return false;
    const ForwardParams& f = p.f;
    const float product = dot(query(f.q, i), f.q.d_stride, key(f.k, j), f.k.d_stride, f.d);
    const i64 block = head_block(p, seq, b, h, i / kSpec.queries, kSpec.queries);
    const RowFacts facts = p.rows[block * kSpec.queries + i % kSpec.queries];
    float factor = 1.0f;
    if constexpr (kTerms) {
      const float score = terms.score(product, i, j, bias);
      if (score == -infinity()) return false;
      weight = exp2_fast((score - facts.lse) * kLog2E);
      if (terms.softcap > 0) factor = softcapped(product * terms.scale, terms.softcap).slope;
    } else {
      weight = exp2_fast(fmaf(product, f.scale, -facts.lse) * kLog2E);
    }
    float dp = dot(query(p.grad_o, i), p.grad_o.d_stride, key(f.v, j), f.v.d_stride, f.dv);
    bool kept = true;
    if constexpr (kSpec.dropout) {
      kept = keeps_element(f, b, h, i, j);
      dp = kept ? dp * f.dropout.keep_scale : 0.0f;
    }
    ds = weight * (dp - facts.delta) * factor * f.scale;
    weight = kept ? weight * (kSpec.dropout ? f.dropout.keep_scale : 1.0f) : 0.0f;
    return true;
  }
};

// Columns [first, first + count) of dQ's row i.
template <PortableSpec kSpec>
__device__ __noinline__ void write_exact_query(const BackwardParams& p, int b, int h, int i,
                                               int first, int count) {
  using E = Elements<kSpec.element>;
  const Sequence seq = sequence_of(p.f, b);
  const ExactPairs<kSpec> pairs(p, seq, b, h);
  const MaskSides sides(p.f, seq, i);
  auto* to = QueryRows<typename E::Bits>(p.grad_q, b, seq.q_start, h)(i);
#pragma unroll 1
  for (int c = 0; c < count; c += 32) {
    const int column = first + c + static_cast<int>(threadIdx.x % 32);
    const bool inside = c + static_cast<int>(threadIdx.x % 32) < count && column < p.f.d;
    float sum = 0.0f;
#pragma unroll 1
    for (int j = sides.begin(0); j < sides.end(0); ++j) {
      float weight, ds;
      if (!pairs.weigh(i, j, weight, ds)) continue;
      if (inside) sum += ds * E::to_float(pairs.key(p.f.k, j)[column * p.f.k.d_stride]);
    }
    if (inside) to[column * p.grad_q.d_stride] = E::from_float(sum);
  }
}

// Columns [first, first + count) of row j of dK, or of dV.
template <PortableSpec kSpec>
__device__ __noinline__ void write_exact_key(const BackwardParams& p, int b, int hkv, int j,
                                             int first, int count, bool values) {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  const Sequence seq = sequence_of(p.f, b);
  const Range queries = Diagonals(p.f, seq).queries_of(seq, j, 1);
  const Operand& x = values ? p.grad_o : p.f.q;
  const Operand& to = values ? p.grad_v : p.grad_k;
  const int d = values ? p.f.dv : p.f.d;
  Bits* const row = static_cast<Bits*>(to.data) + b * to.b_stride +
                    (seq.k_start + j) * to.s_stride + hkv * to.h_stride;
#pragma unroll 1
  for (int c = 0; c < count; c += 32) {
    const int column = first + c + static_cast<int>(threadIdx.x % 32);
    const bool inside = c + static_cast<int>(threadIdx.x % 32) < count && column < d;
    float sum = 0.0f;
#pragma unroll 1
    for (int h = hkv * p.f.group; h < (hkv + 1) * p.f.group; ++h) {
      const ExactPairs<kSpec> pairs(p, seq, b, h);
#pragma unroll 1
      for (int i = queries.begin; i < queries.end; ++i) {
        float weight, ds;
        if (!pairs.weigh(i, j, weight, ds)) continue;
        if (!inside) continue;
        sum += (values ? weight : ds) * E::to_float(pairs.query(x, i)[column * x.d_stride]);
      }
    }
    if (inside) row[column * to.d_stride] = E::from_float(sum);
  }
}

}  // namespace attune::kernel
