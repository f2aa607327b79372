// Rows that are computed again, key by key, without the keys that are masked out: those whose O is not
// finite although their sum is, since a value that is NaN or infinite met them, perhaps only as
// 0 * NaN of a masked key; and, where products lose infinities, those whose sum is NaN. Rare, so it is
// written for size.
#pragma once

#include <attune/part/dropout_stream.cuh>
#include <attune/part/result.cuh>
#include <attune/part/tile_scales.cuh>

namespace attune::kernel {

// Bit 2m + half of this thread: its row holds such values.
template <typename W, bool kKeepsInfinities, typename S>
__device__ __forceinline__ u32 doubtful_rows(const typename W::Values& o, const S& softmax) {
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
      const float l = softmax.l[m][half];
      if (kKeepsInfinities ? sum != sum && l * 0.0f == 0.0f : sum != sum || l != l) {
        bad |= 1u << (2 * m + half);
      }
    }
  }
  return bad;
}

// One row by a whole warp. Lanes share the elements of q and k, then the columns of v.
template <auto kSpec>
struct ExactRow {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  using Out = Elements<output_of(kSpec.element)>;
  static constexpr bool kScaled = kSpec.element == Element::f8e4m3;
  using Rows = KeyRows<Bits, takes_pages(kSpec)>;
  static constexpr Units kUnits = units_of(kSpec);
  const ForwardParams& p;
  const Sequence& seq;
  int b, h, i;
  ScoreTerms terms;
  MaskSides sides;
  Rows k_rows, v_rows;
  TileScales scales;  // if kScaled

  __device__ __forceinline__ ExactRow(const ForwardParams& p, const Sequence& seq, int b, int h,
                                      int i, TileScales scales = {})
      : p(p),
        seq(seq),
        b(b),
        h(h),
        i(i),
        terms(p, seq, b, h, kSpec.bias, kSpec.general),
        sides(p, seq, i),
        k_rows(p, p.k, first_key_row<Bits, takes_pages(kSpec)>(p, p.k, b, seq.k_start, h / p.group),
               b),
        v_rows(p, p.v, first_key_row<Bits, takes_pages(kSpec)>(p, p.v, b, seq.k_start, h / p.group),
               b),
        scales(scales) {}

  // In the softmax's units; false when the key is masked out.
  __device__ __forceinline__ bool score(int j, float& out) const {
    const float bias = terms.bias_kind != BiasKind::none ? terms.bias_at(i, j) : 0.0f;
    if (bias == -infinity()) return false;
    const Bits* q = QueryRows<const Bits>(p.q, b, seq.q_start, h)(i);
    const Bits* k = k_rows(j);
    float product = 0.0f;
    for (int d = threadIdx.x % 32; d < p.d; d += 32) {
      product += E::to_float(q[d * p.q.d_stride]) * E::to_float(k[d * p.k.d_stride]);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
      product += __shfl_xor_sync(~0u, product, distance);
    if constexpr (kUnits == Units::products) {
      out = product * (kScaled ? scales.products : p.scale_log2);
    } else {
      out = terms.score(product, i, j, bias) * (kUnits == Units::natural ? 1.0f : kLog2E);
    }
    return true;
  }

  static __device__ __forceinline__ float power(float difference) {
    return exp2_fast(kUnits == Units::natural ? difference * kLog2E : difference);
  }

  // The row's sum when nothing is known of it; rewrites its LSE.
  __device__ __forceinline__ void sum_up(float& reference, float& inverse) const {
    float m = -infinity(), l = 0.0f;
#pragma unroll 1
    for (int j = sides.begin(0); j < sides.end(0); ++j) {
      float s;
      if (!score(j, s) || s == -infinity()) continue;
      const float next = fmaxf(m, s);
      l = l * power(m - next) + power(s - next);
      m = next;
    }
    const FinishedRow row = finish_row<kUnits == Units::natural, kSpec.element>(p, h, m, l);
    reference = m;
    inverse = row.inverse;
    if (p.lse.data != nullptr && threadIdx.x % 32 == 0) *lse_at(p, seq, b, h, i) = row.lse;
  }

  __device__ __forceinline__ void write(float reference, float inverse) const {
    const float base = reference == -infinity() ? 0.0f : reference;
    if constexpr (kScaled) inverse *= scales.values;
    auto* const o = QueryRows<typename Out::Bits>(p.o, b, seq.q_start, h)(i);
#pragma unroll 1
    for (int d0 = 0; d0 < p.dv; d0 += 32) {
      const int column = d0 + static_cast<int>(threadIdx.x % 32);
      float sum = 0.0f;
#pragma unroll 1
      for (int j = sides.begin(0); j < sides.end(0); ++j) {
        float s;
        if (!score(j, s)) continue;
        float weight = power(s - base);
        if constexpr (kSpec.dropout) {
          const bool kept = keeps_element(p, b, h, i, j);
          weight = kept ? weight * p.dropout.keep_scale : 0.0f;
        }
        if (column < p.dv) sum += weight * E::to_float(v_rows(j)[column * p.v.d_stride]);
      }
      if (column < p.dv) o[column * p.o.d_stride] = Out::from_float(sum * inverse);
    }
  }
};

// What stands in place of the reference of a row that is right, or of one of which nothing is known.
constexpr u32 kRowIsRight = ~0u, kRowIsUnknown = ~1u;  // two NaN

// A function of its own, not inlined, so that it does not weigh on the registers of the main loop.
// `scratch`: a reference and an inverse for each of this warp's rows.
template <auto kSpec, typename W>
__device__ __noinline__ void write_exact_rows(const ForwardParams& p, const TileFacts& facts,
                                              u32 scratch) {
  const Sequence& seq = facts.seq;
  const TilePlace& tile = facts.place;
#pragma unroll 1
  for (int row = 0; row < W::kWarpRows; ++row) {
    const int i = tile.block * W::kQueries + W::first_row() + row;
    const u32 bits = load_shared(scratch + 8 * row);
    if (bits == kRowIsRight || i >= seq.sq) continue;
    const ExactRow<kSpec> exact(p, seq, tile.b, tile.h, i);
    float reference = __uint_as_float(bits);
    float inverse = __uint_as_float(load_shared(scratch + 8 * row + 4));
    if (bits == kRowIsUnknown) exact.sum_up(reference, inverse);
    exact.write(reference, inverse);
  }
}

// `scratch` is shared memory of this warp alone, kWarpRows times 8 bytes.
template <auto kSpec, typename W, typename S>
__device__ __forceinline__ void exact_rows(const ForwardParams& p, const TileFacts& facts,
                                           const S& softmax, u32 bad, u32 scratch) {
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool again =
          (__ballot_sync(~0u, (bad >> (2 * m + half) & 1u) != 0) >> lane / 4 * 4 & 15u) != 0;
      const float l = softmax.l[m][half];
      const u32 at = scratch + 8 * (16 * m + 8 * half + lane / 4);
      const u32 reference = l != l ? kRowIsUnknown : __float_as_uint(softmax.m[m][half]);
      store_shared(at, again ? reference : kRowIsRight);
      store_shared(at + 4, __float_as_uint(softmax.inverse[m][half]));
    }
  }
  __syncwarp();
  write_exact_rows<kSpec, W>(p, facts, scratch);
}

// Those of this warp's rows whose O in memory is not finite, with nothing else known of them. Likewise. `scales`: of
// a tile that has them.
template <auto kSpec, typename W, typename... Scales>
__device__ __noinline__ void write_spoiled_rows(const ForwardParams& p, const TileFacts& facts,
                                                Scales... scales) {
  using Out = Elements<output_of(kSpec.element)>;
  using Bits = typename Out::Bits;
  const TilePlace& tile = facts.place;
#pragma unroll 1
  for (int row = 0; row < W::kWarpRows; ++row) {
    const int i = tile.block * W::kQueries + W::first_row() + row;
    if (i >= facts.seq.sq) break;
    const Bits* o = QueryRows<const Bits>(p.o, tile.b, facts.seq.q_start, tile.h)(i);
    bool spoiled = false;
    for (int d = threadIdx.x % 32; d < p.dv; d += 32) {
      spoiled |= Out::to_float(o[d * p.o.d_stride]) * 0.0f != 0.0f;
    }
    if (!__any_sync(~0u, spoiled)) continue;
    const ExactRow<kSpec> exact(p, facts.seq, tile.b, tile.h, i, scales...);
    float reference, inverse;
    exact.sum_up(reference, inverse);
    exact.write(reference, inverse);
  }
}

}  // namespace attune::kernel
