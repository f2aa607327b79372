// From raw products to P and dS of a warp's tile, for the backward pass.
#pragma once

#include <attune/kernel/backward_portable_layout.h>

#include <attune/part/dropout.cuh>
#include <attune/part/gradient.cuh>
#include <attune/part/key_place.cuh>
#include <attune/part/mask.cuh>

namespace attune::kernel {

// S and dP of 32 rows a warp where each has 16 keys or more left.
template <PortableSpec kSpec, int kWidth, int kSplitDepth>
struct BackwardShape {
  static constexpr int kRows =
      kSpec.queries % 32 == 0 && kSpec.keys * kSpec.queries >= 32 * 16 * kSpec.warps ? 32 : 16;
  static constexpr int kSharers = kSpec.warps * kRows / kSpec.queries;
  using W = WarpShape<kSpec.element, kSpec.queries, kSpec.keys, kSpec.warps, kWidth, kSharers, 1,
                      kSplitDepth>;
  using G = GradientShape<kSpec.element, kSpec.queries, kSpec.keys, kSpec.warps, kWidth>;
};

// backward_columns() on the device.
template <PortableSpec kSpec>
__device__ __forceinline__ i64 sum_columns(int d) {
  if constexpr (kSpec.head_dim != 0) return kSpec.head_dim;
  return (static_cast<i64>(d) + kBackwardChunk - 1) / kBackwardChunk * kBackwardChunk;
}

// This thread's part of the sums of dQ of a block of queries and a head (number `block`), columns from
// `column` on: [chunks of columns][warps][fragments][lanes][4].
template <PortableSpec kSpec, typename G>
__device__ __forceinline__ float* query_sums(const BackwardParams& p, i64 block, int column) {
  constexpr int kWarpFloats = G::kQueryRows * G::kQueryColumns;
  return p.grad_q_sum + block * kSpec.queries * sum_columns<kSpec>(p.f.d) +
         static_cast<i64>(column) * kSpec.queries + G::warp() * kWarpFloats +
         static_cast<int>(threadIdx.x % 32) * 4;
}

// One tile of queries from i on and keys from j on, of head h. In order: begin(), powers() of S,
// differences() of dP.
template <PortableSpec kSpec, typename W>
struct Weigher {
  static constexpr bool kTerms = kSpec.bias || kSpec.general;
  static constexpr bool kSplit = uses_split(kSpec.element, kSpec.arch);
  // The LSE is taken from the score before the factor of log2 e: what that is rounded by, large scores
  // would multiply. In half precision it is lost in the rounding of q and k.
  static constexpr bool kFromDifference = kTerms || kSpec.element == Element::f32;
  // Tensor cores cut the sums of split products. All weights of a row share what scores lose, and what dP
  // loses is all that is left where delta cancels it; so its mean is put back (measured: 1e-8 to 2.6e-8
  // of them).
  static constexpr float kCutShare = 2e-8f;
  const BackwardParams& p;
  const Sequence& seq;
  ScoreTerms terms;
  int b, h, i, j;  // j: this warp's first key
  u32 rows;        // RowFacts of the tile's queries, in shared memory
  BiasTile<W> bias;
  KeptElements<W, kSpec.dropout> kept_elements;
  typename W::Scores slope;  // of the softcap

  __device__ __forceinline__ Weigher(const BackwardParams& p, const Sequence& seq, int b, int h,
                                     int i, int j, u32 rows)
      : p(p),
        seq(seq),
        terms(p.f, seq, b, h, kSpec.bias, kSpec.general),
        b(b),
        h(h),
        i(i),
        j(j + W::half() * W::kWarpKeys),
        rows(rows) {}

  // Asynchronous copies of what powers() and differences() take from shared memory.
  static __device__ __forceinline__ void copy_rows(u32 to, const BackwardParams& p, i64 block) {
    const int at = static_cast<int>(threadIdx.x) * 2;  // 16 bytes
    if (at < kSpec.queries) copy_async(to + at * 8, p.rows + block * kSpec.queries + at, true);
  }

  // Of this thread's row: LSE or delta.
  [[nodiscard]] __device__ __forceinline__ float fact(int m, int half, int offset) const {
    return __uint_as_float(load_shared(rows + thread_row<W>(m, half) * 8 + offset));
  }
  __device__ __forceinline__ void load_facts(float (&x)[W::kRowTiles][2], int offset) const {
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
      x[m][0] = fact(m, 0, offset);
      x[m][1] = fact(m, 1, offset);
    }
  }

  // Starts the loads that the rest waits for, and draws what is dropped while registers are free.
  __device__ __forceinline__ void begin() {
    const int row0 = i + thread_row<W>(0, 0);
    if constexpr (kSpec.bias) bias.load(terms, row0, seq.sq - 1, j, seq.sk);
    if constexpr (kSpec.dropout) {
      kept_elements.draw(p.f, b, h, row0, j);
    }
  }

  // Calls body(element, m, half, group of four keys, key of four).
  template <typename Body>
  static __device__ __forceinline__ void for_each(typename W::Scores& s, const Body& body) {
    BiasTile<W>::for_each_score(s, body);
  }

  // Raw products -> P, negative where it is dropped. `whole`: nothing is masked.
  __device__ __forceinline__ void powers(typename W::Scores& s, bool whole) {
    float lses[W::kRowTiles][2];
    load_facts(lses, 0);
    if constexpr (kFromDifference) {
      for_each(s, [&](float& x, int m, int half, int n, int e) {
        const float scaled = x * p.f.scale, lse = lses[m][half];
        if (kSpec.general && terms.softcap > 0) {
          const Softcapped capped = softcapped(scaled, terms.softcap);
          slope[m][2 * n + e / 2][2 * half + e % 2] = capped.slope;
          x = capped.whole - lse + capped.rest;
        } else {
          x = fmaf(x, p.f.scale, -lse);
          if constexpr (kSplit) x = fmaf(scaled, kCutShare, x);
        }
      });
      if constexpr (kTerms) bias.add(s, terms, i + thread_row<W>(0, 0), j);
    }
    if (!whole) {
      const MaskSides sides(p.f, seq, i);
      const int last = smaller(W::first_row() + W::kWarpRows, seq.sq - i) - 1;
      if (!(j >= sides.begin(last) && j + W::kWarpKeys <= sides.end(W::first_row()))) {
        apply_mask<W>(s, sides, j);
      }
    }
    const float factor = p.f.scale_log2;
    for_each(s, [&](float& x, int m, int half, int, int) {
      const float lse = lses[m][half];
      if constexpr (kFromDifference) {
        // A row without facts has no weight, whatever its scores are.
        x = lse == infinity() ? 0.0f : exp2_fast(x * kLog2E);
      } else {
        x = exp2_fast(x * factor - lse * kLog2E);
      }
    });
    if constexpr (kSpec.dropout) {
      for_each(s, [&](float& x, int m, int half, int group, int e) {
        if (!kept_elements.keeps(m, half, group, e)) x = -fabsf(x);
      });
    }
  }

  // What dV is the sum of, but for 1 / (1 - dropout): no weight is negative but one that is dropped.
  static __device__ __forceinline__ float kept(float p) {
    return kSpec.dropout && is_dropped(p) ? 0.0f : p;
  }
  static __device__ __forceinline__ bool is_dropped(float p) {
    return __float_as_uint(p) >> 31 != 0;
  }

  // P and dP -> the gradient of the scores once the softcap is behind them.
  __device__ __forceinline__ void differences(typename W::Scores& s, const typename W::Scores& dp) {
    float deltas[W::kRowTiles][2];
    load_facts(deltas, 4);
    const float keep_scale = kSpec.dropout ? p.f.dropout.keep_scale : 1.0f;
    for_each(s, [&](float& x, int m, int half, int group, int e) {
      const float y = dp[m][2 * group + e / 2][2 * half + e % 2];
      const float delta = deltas[m][half];
      float gap = fmaf(y, keep_scale, -delta);
      if constexpr (kSplit) gap = fmaf(y * keep_scale, kCutShare, gap);
      if constexpr (kSpec.dropout) {
        if (is_dropped(x)) gap = -delta;
        x = fabsf(x);
      }
      const float ds = x * gap;
      // Sums of dS are not computed again, as those of products are: what is masked out adds nothing.
      x = kTerms && x == 0.0f ? 0.0f : ds;
    });
  }

  // The sum over this thread's elements of dS times what the slope of ALiBi is multiplied with.
  [[nodiscard]] __device__ __forceinline__ float slope_gradient(typename W::Scores& ds) const {
    const int row0 = i + thread_row<W>(0, 0) + terms.shift,
              key = j + 4 * static_cast<int>(threadIdx.x % 4);
    float sum = 0.0f;
    for_each(ds, [&](float& x, int m, int half, int group, int e) {
      const int distance = row0 + 16 * m + 8 * half - (key + 16 * group + e);
      sum -= x * fabsf(static_cast<float>(distance));
    });
    return sum;
  }

  // Back through the softcap: the gradient of the scaled products.
  __device__ __forceinline__ void through_softcap(typename W::Scores& ds) const {
    if (!kSpec.general || !(terms.softcap > 0)) return;
    for_each(ds, [&](float& x, int m, int half, int group, int e) {
      const float factor = slope[m][2 * group + e / 2][2 * half + e % 2];
      x = x == 0.0f ? 0.0f : x * factor;
    });
  }
};

}  // namespace attune::kernel
