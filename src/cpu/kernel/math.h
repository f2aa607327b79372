// 2^x and tanh on vectors.
#pragma once

#include "cpu/kernel/simd.h"

namespace attune::cpu::ATTUNE_ISA {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.69314718055994531f;
inline constexpr float kInfinity = __builtin_inff();

// Minimax polynomials of 2^f on [-1/2, 1/2], exact at 0 (relative error 9.1e-8 and 1.9e-9). The
// lower degree serves where P is rounded to bf16 next; its sum, the LSE, is a float still.
template <int kDegree>
struct Exp2Polynomial;
template <>
struct Exp2Polynomial<5> {
  static constexpr float c[] = {1.0f,         0.693147f,    0.24022242f,
                                0.055507336f, 0.009671513f, 0.0013264728f};
};
template <>
struct Exp2Polynomial<6> {
  static constexpr float c[] = {1.0f,         0.6931472f,    0.24022646f,   0.055503286f,
                                0.009618489f, 0.0013399931f, 0.00015345812f};
};

// 2^x for x <= 126. Below 2^-126 the result is exactly 0, so that masked scores (-inf) give exact
// zeros and no subnormal slows the products down. NaN stays NaN.
template <int kDegree = 6>
ATTUNE_INLINE F exp2(F x) {
  // x + magic leaves round(x) + 127 in the low bits: the exponent field of 2^round(x), ready to be
  // shifted into place. The clamp makes that field 0, hence 2^round(x) = 0.
  const F clamped = max(splat(-127.0f), x);
  const F magic = splat(12582912.0f + 127.0f);
  const F shifted = clamped + magic;
  const F power = as_f(as_u(shifted) << 23);
  const F f = clamped - (shifted - magic);
  constexpr const float* c = Exp2Polynomial<kDegree>::c;
  F p = splat(c[kDegree]);
#pragma GCC unroll 8
  for (int i = kDegree - 1; i >= 0; --i) p = p * f + c[i];
  return p * power;
}

// tanh: an odd polynomial near zero, where 1 - 2 / (e^2x + 1) would cancel; coefficients as in
// Cephes' tanhf (Moshier 1989).
ATTUNE_INLINE F tanh(F x) {
  const F magnitude = abs(x);
  const F z = x * x;
  F p = splat(-5.70498872745e-3f);
  p = p * z + 2.06390887954e-2f;
  p = p * z + -5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z + -3.33332819422e-1f;
  const F near = x + x * z * p;
  // Beyond 9, tanh is 1 in float; the clamp keeps 2^x in range.
  const F capped = select(magnitude > splat(9.0f), splat(9.0f), magnitude);
  const F far = 1.0f - 2.0f / (exp2<6>(capped * (2.0f * kLog2E)) + 1.0f);
  const F signed_far = as_f(as_u(far) | (as_u(x) & 0x80000000u));
  const F result = select(magnitude < splat(0.625f), near, signed_far);
  return select(reinterpret_cast<I>(x != x), x, result);
}

// log2 of one positive number; the compiler's builtin is the library call, once a row.
ATTUNE_INLINE float log2(float x) { return __builtin_log2f(x); }

}  // namespace attune::cpu::ATTUNE_ISA
