// Element types of tensors, and their conversion to and from float, one at a time and by vectors.
#pragma once

#include "cpu/kernel/simd.h"

namespace attune::cpu::ATTUNE_ISA {

struct f16 {
  std::uint16_t bits;
};
struct bf16 {
  std::uint16_t bits;
};
struct f8e4m3 {
  std::uint8_t bits;
};

ATTUNE_INLINE float float_from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
ATTUNE_INLINE std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

// binary16 by shifting into place and multiplying by 2^112, which also normalises subnormals;
// exponent 31 (Inf, NaN) is patched.
ATTUNE_INLINE F widen(H half, f16 /*tag*/) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(reinterpret_cast<__m256i>(half));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(reinterpret_cast<__m128i>(half));
#else
  const U wide = __builtin_convertvector(half, U);
  const U magnitude = (wide & 0x7fffu) << 13;
  const U sign = (wide & 0x8000u) << 16;
  const F scaled = as_f(magnitude) * float_from_bits((127u + 112u) << 23);
  const I special = reinterpret_cast<I>(wide & 0x7c00u) == splat(0x7c00);
  const F patched = select(special, as_f(magnitude | 0x7f800000u), scaled);
  return as_f(as_u(patched) | sign);
#endif
}
// As binary16's, by 2^120; it has no infinities, and all bits set are NaN.
ATTUNE_INLINE F widen(B byte, f8e4m3 /*tag*/) {
  const U wide = __builtin_convertvector(byte, U);
  const U magnitude = wide & 0x7fu;
  const F scaled = as_f(magnitude << 20) * float_from_bits((127u + 120u) << 23);
  const I nan = reinterpret_cast<I>(magnitude) == splat(0x7f);
  return as_f(as_u(select(nan, splat(__builtin_nanf("")), scaled)) | ((wide & 0x80u) << 24));
}
ATTUNE_INLINE F widen(H half, bf16 /*tag*/) { return as_f(__builtin_convertvector(half, U) << 16); }

// Round to nearest even; NaN stays a quiet NaN.
ATTUNE_INLINE H narrow(F x, bf16 /*tag*/) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<H>(_mm512_cvtneps_pbh(x));
#else
  const U bits = as_u(x);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const I nan = reinterpret_cast<I>(bits & 0x7fffffffu) > splat(0x7f800000);
  return __builtin_convertvector(nan ? ((bits >> 16) | 0x40u) : rounded, H);
#endif
}

ATTUNE_INLINE std::uint16_t narrow_f16_bits(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 makes the hardware round at the last place of binary16.
    const float shifted = float_from_bits(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (bits_of(shifted) - bits_of(0.5f)));
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
}
ATTUNE_INLINE H narrow(F x, f16 /*tag*/) {
#if defined(__AVX512F__)
  return reinterpret_cast<H>(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  return reinterpret_cast<H>(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  H out{};
  for (int lane = 0; lane < kLanes; ++lane) out[lane] = narrow_f16_bits(x[lane]);
  return out;
#endif
}

ATTUNE_INLINE F load_float(const float* p) { return load<F>(p); }
ATTUNE_INLINE F load_float(const f8e4m3* p) { return widen(load<B>(p), f8e4m3{}); }
template <typename T>
ATTUNE_INLINE F load_float(const T* p) {
  return widen(load<H>(p), T{});
}
ATTUNE_INLINE void store_float(float* p, F x) { store(p, x); }
template <typename T>
ATTUNE_INLINE void store_float(T* p, F x) {
  store(p, narrow(x, T{}));
}

ATTUNE_INLINE float to_float(float x) { return x; }
ATTUNE_INLINE float to_float(bf16 x) { return float_from_bits(std::uint32_t{x.bits} << 16); }
ATTUNE_INLINE float to_float(f16 x) {
  const std::uint32_t magnitude = (std::uint32_t{x.bits} & 0x7fffu) << 13;
  const std::uint32_t sign = (std::uint32_t{x.bits} & 0x8000u) << 16;
  const bool special = (x.bits & 0x7c00u) == 0x7c00u;
  const float scaled = float_from_bits(magnitude) * float_from_bits((127u + 112u) << 23);
  return float_from_bits((special ? (magnitude | 0x7f800000u) : bits_of(scaled)) | sign);
}
ATTUNE_INLINE float to_float(f8e4m3 x) {
  const std::uint32_t magnitude = x.bits & 0x7fu;
  const std::uint32_t sign = (std::uint32_t{x.bits} & 0x80u) << 24;
  const float scaled = float_from_bits(magnitude << 20) * float_from_bits((127u + 120u) << 23);
  return float_from_bits((magnitude == 0x7fu ? 0x7fc00000u : bits_of(scaled)) | sign);
}
ATTUNE_INLINE void from_float(float x, float* out) { *out = x; }
ATTUNE_INLINE void from_float(float x, f16* out) { out->bits = narrow_f16_bits(x); }
ATTUNE_INLINE void from_float(float x, bf16* out) {
  const std::uint32_t bits = bits_of(x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out->bits = static_cast<std::uint16_t>(nan ? ((bits >> 16) | 0x40u) : rounded);
}

}  // namespace attune::cpu::ATTUNE_ISA
