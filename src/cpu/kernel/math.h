// 2^x and tanh on vectors.
#pragma once

#include "cpu/kernel/simd.h"

namespace attune::cpu::ATTUNE_ISA {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.69314718055994531f;
inline constexpr double kLn2Double = 0.693147180559945309;
inline constexpr float kInfinity = __builtin_inff();

// Minimax polynomials of 2^f, exact at 0 (relative error 9e-8 and 2e-9): f is what is left of x when
// it is rounded down where the machine has an instruction for that, else to nearest. The lower degree
// serves where P is rounded to bf16 next; its sum, the LSE, is a float still.
template <int kDegree>
struct Exp2Polynomial;
template <>
struct Exp2Polynomial<5> {
#if defined(__AVX512DQ__)
  static constexpr float c[] = {1.0f,         0.6931513f,  0.24016444f,
                                0.055799913f, 0.00901703f, 0.0018671303f};
#else
  static constexpr float c[] = {1.0f,         0.693147f,    0.24022242f,
                                0.055507336f, 0.009671513f, 0.0013264728f};
#endif
};
template <>
struct Exp2Polynomial<6> {
#if defined(__AVX512DQ__)
  static constexpr float c[] = {1.0f,         0.69314706f,   0.24022931f,   0.055485282f,
                                0.009675452f, 0.0012467846f, 0.00021612918f};
#else
  static constexpr float c[] = {1.0f,         0.6931472f,    0.24022646f,   0.055503286f,
                                0.009618489f, 0.0013399931f, 0.00015345812f};
#endif
};

template <int kDegree>
ATTUNE_INLINE F exp2_polynomial(F f) {
  constexpr const float* c = Exp2Polynomial<kDegree>::c;
  F p = splat(c[kDegree]);
#pragma GCC unroll 8
  for (int i = kDegree - 1; i >= 0; --i) p = p * f + c[i];
  return p;
}

// 2^x for x <= 126. Below 2^-126 the result is exactly 0, so that masked scores (-inf) give exact
// zeros and no subnormal slows the products down. NaN stays NaN.
template <int kDegree = 6>
ATTUNE_INLINE F exp2(F x) {
#if defined(__AVX512DQ__)
  // f = x - floor(x), 0 of an infinity; then p times 2^floor(x).
  const F f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const __mmask16 normal = _mm512_cmp_ps_mask(x, splat(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, exp2_polynomial<kDegree>(f), x);
#else
  // x + magic leaves round(x) + 127 in the low bits: the exponent field of 2^round(x), ready to be
  // shifted into place. The clamp makes that field 0, hence 2^round(x) = 0.
  const F clamped = max(splat(-127.0f), x);
  const F magic = splat(12582912.0f + 127.0f);
  const F shifted = clamped + magic;
  const F power = as_f(as_u(shifted) << 23);
  const F f = clamped - (shifted - magic);
  return exp2_polynomial<kDegree>(f) * power;
#endif
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
