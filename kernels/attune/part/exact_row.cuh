// Rows whose O is not finite although their sum is: a value that is NaN or infinite met them, perhaps
// only as 0 * NaN of a key that is masked out. Such rows are computed again, key by key, without
// the masked ones. Rare, so it is written for size.
#pragma once

#include <attune/part/philox.cuh>
#include <attune/part/result.cuh>

namespace attune::kernel {

// Bit 2m + half of this thread: its row holds such values.
template <typename W, typename S>
__device__ __forceinline__ u32 non_finite_rows(const typename W::Values& o, const S& softmax) {
  u32 bad = 0;
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = 0.0f;  // NaN as soon as one of them is not finite
#pragma unroll
      for (int d = 0; d < W::kWidthTiles; ++d) {
        sum = fmaf(o[m][d][2 * half], 0.0f, sum);
        sum = fmaf(o[m][d][2 * half + 1], 0.0f, sum);
      }
      if (sum != sum && softmax.l[m][half] * 0.0f == 0.0f) bad |= 1u << (2 * m + half);
    }
  }
  return bad;
}

// O of one row by a whole warp; lanes share the columns.
template <PortableForward kSpec>
__device__ __forceinline__ void exact_row(const ForwardParams& p, const Sequence& seq, int b, int h,
                                       int i, float reference, float inverse) {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  const int lane = threadIdx.x % 32;
  constexpr bool kTerms = kSpec.bias || kSpec.general;
  const ScoreTerms terms(p, seq, b, h, kSpec.bias, kSpec.general);
  const MaskSides sides(p, seq, i);
  const Bits* q = QueryRows<const Bits>(p.q, b, seq.q_start, h)(i);
  Bits* o = QueryRows<Bits>(p.o, b, seq.q_start, h)(i);
  using Rows = KeyRows<Bits, kSpec.general>;
  const int hkv = h / p.group;
  const Rows k_rows(p, p.k, first_key_row<Bits, kSpec.general>(p, p.k, b, seq.k_start, hkv), b);
  const Rows v_rows(p, p.v, first_key_row<Bits, kSpec.general>(p, p.v, b, seq.k_start, hkv), b);
  for (int d0 = 0; d0 < p.dv; d0 += 32) {
    const int column = d0 + lane;
    float sum = 0.0f;
    for (int j = sides.begin(0); j < sides.end(0); ++j) {
      const float bias = terms.bias_kind != BiasKind::none ? terms.bias_at(i, j) : 0.0f;
      if (bias == -infinity()) continue;
      const Bits* k = k_rows(j);
      float product = 0.0f;
      for (int d = lane; d < p.d; d += 32) {
        product += E::to_float(q[d * p.q.d_stride]) * E::to_float(k[d * p.k.d_stride]);
      }
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2)
        product += __shfl_xor_sync(~0u, product, distance);
      float weight = kTerms ? exp2_fast((terms.score(product, i, j, bias) - reference) * kLog2E)
                            : exp2_fast(product * p.scale_log2 - reference);
      if constexpr (kSpec.dropout) {
        const bool kept = DropoutStream(p.dropout).keep(dropout_row(p, b, h, i) + j);
        weight = kept ? weight * p.dropout.keep_scale : 0.0f;
      }
      if (column < p.dv) sum += weight * E::to_float(v_rows(j)[column * p.v.d_stride]);
    }
    if (column < p.dv) o[column * p.o.d_stride] = E::from_float(sum * inverse);
  }
}

// `scratch` is shared memory of this warp alone, kWarpRows times 8 bytes; through it the rows can be
// walked by a loop that is not unrolled.
template <PortableForward kSpec, typename W, typename S>
__device__ __forceinline__ void exact_rows(const ForwardParams& p, const Sequence& seq,
                                           const TilePlace& tile, const S& softmax, u32 bad,
                                           u32 scratch) {
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool again =
          (__ballot_sync(~0u, (bad >> (2 * m + half) & 1u) != 0) >> lane / 4 * 4 & 15u) != 0;
      const u32 at = scratch + 8 * (16 * m + 8 * half + lane / 4);
      // Rows that are right as they are get a reference of NaN.
      store_shared(at, again ? __float_as_uint(softmax.m[m][half]) : ~0u);
      store_shared(at + 4, __float_as_uint(softmax.inverse[m][half]));
    }
  }
  __syncwarp();
#pragma unroll 1
  for (int row = 0; row < W::kWarpRows; ++row) {
    const int i = tile.block * W::kQueries + W::first_row() + row;
    const float reference = __uint_as_float(load_shared(scratch + 8 * row));
    if (reference != reference || i >= seq.sq) continue;
    exact_row<kSpec>(p, seq, tile.b, tile.h, i, reference == -infinity() ? 0.0f : reference,
                     __uint_as_float(load_shared(scratch + 8 * row + 4)));
  }
}

}  // namespace attune::kernel
