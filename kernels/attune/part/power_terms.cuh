// Scores without a bias, in powers of two: scale, softcap and ALiBi of a warpgroup's S, in as few instructions
// as they take. They are added beside matrix products that leave little time.
#pragma once

#include <attune/spec/hopper.h>

#include <attune/part/score.cuh>

namespace attune::kernel {

constexpr Units units_of(const HopperSpec& spec) {
  if (spec.bias) return Units::natural;
  return spec.general ? Units::powers_of_two : Units::products;
}

// Of one (batch, head).
struct PowerTerms {
  float scale;          // raw product -> power of two
  float cap, exponent;  // of the softcap, likewise, and 2 log2(e) scale / softcap; cap 0: none
  float slope;          // of ALiBi, likewise
  int shift;            // sk - sq

  __device__ __forceinline__ PowerTerms(const ForwardParams& p, const Sequence& s, int b, int h)
      : scale(p.scale_log2),
        cap(p.softcap * kLog2E),
        exponent(p.softcap > 0 ? 2.0f * p.scale_log2 / p.softcap : 0.0f),
        slope(0.0f),
        shift(s.sk - s.sq) {
    if (p.alibi != nullptr) slope = p.alibi[b * p.alibi_b_stride + h * p.alibi_h_stride] * kLog2E;
  }

  // Raw products -> scores, of this thread's first query `row` and keys from j on. cap tanh(u) is
  // cap - 2 cap / (e^2u + 1), whose error is absolute, 2^-22 of the cap (kMostHopperSoftcap).
  template <typename W>
  __device__ __forceinline__ void apply(typename W::Scores& s, int row, int j) const {
    if (cap > 0) {
      each<W>(s, [&](float& x, int, int) {
        x = fmaf(-2.0f * cap, reciprocal_fast(exp2_fast(x * exponent) + 1.0f), cap);
      });
    } else {
      each<W>(s, [&](float& x, int, int) { x *= scale; });
    }
    if (slope != 0.0f) {
      const int distance = row + shift - j - W::first_key();
      const float from[2] = {static_cast<float>(distance), static_cast<float>(distance + 8)};
      each<W>(s, [&](float& x, int half, int key) {
        x = fmaf(-slope, fabsf(from[half] - static_cast<float>(key)), x);
      });
    }
  }

  // Calls body(score, half, key).
  template <typename W, typename Body>
  static __device__ __forceinline__ void each(typename W::Scores& s, const Body& body) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) body(s[0][n][2 * half + e], half, W::key_at(n, e));
      }
    }
  }
};

}  // namespace attune::kernel
