// As kernels/attune/arch/convert.cuh, on the host.
#pragma once

#include "tests/emulator/device.h"

namespace attune::kernel {

namespace detail {

inline float compute_f16_to_float(u32 x) {
  const u32 sign = (x & 0x8000u) << 16, exponent = x >> 10 & 31u, fraction = x & 1023u;
  if (exponent == 0) return ldexpf(sign != 0 ? -1.0f : 1.0f, -24) * static_cast<float>(fraction);
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

struct FloatsOfF16 {
  float of[1 << 16];
  FloatsOfF16() {
    for (u32 x = 0; x < 1 << 16; ++x) of[x] = compute_f16_to_float(x);
  }
};
inline const FloatsOfF16 floats_of_f16;

}  // namespace detail

inline float f16_to_float(unsigned short x) { return detail::floats_of_f16.of[x]; }

inline unsigned short float_to_f16(float x) {
  const u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return 0x7fff;
  if (size >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);  // 65520 and more
  if (size < 0x38800000u) {                                                     // in steps of 2^-24
    return static_cast<unsigned short>(sign | static_cast<u32>(lrintf(fabsf(x) * 0x1p24f)));
  }
  const u32 rounded = size + 0xfffu + (size >> 13 & 1u);
  return static_cast<unsigned short>(sign | ((rounded >> 13) - (112u << 10)));
}

inline unsigned short float_to_bf16(float x) {
  const u32 bits = __float_as_uint(x);
  if (x != x) return 0x7fff;
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline u32 pack_f16(float a, float b) {
  return float_to_f16(a) | static_cast<u32>(float_to_f16(b)) << 16;
}
inline u32 pack_bf16(float a, float b) {
  return float_to_bf16(a) | static_cast<u32>(float_to_bf16(b)) << 16;
}

inline u32 add_zeros_f16(u32 x, u32 sum) {
  const auto half = [&](u32 shift) {
    return f16_to_float(static_cast<unsigned short>(x >> shift)) * 0.0f +
           f16_to_float(static_cast<unsigned short>(sum >> shift));
  };
  return pack_f16(half(0), half(16));
}
inline u32 add_zeros_bf16(u32 x, u32 sum) {
  const auto half = [&](u32 shift) {
    return __uint_as_float(x >> shift << 16) * 0.0f + __uint_as_float(sum >> shift << 16);
  };
  return pack_bf16(half(0), half(16));
}

inline float e4m3_to_float(unsigned char x) {
  const int exponent = x >> 3 & 15, fraction = x & 7;
  if ((x & 0x7f) == 0x7f) return NAN;
  const float size = exponent == 0 ? ldexpf(static_cast<float>(fraction), -9)
                                   : ldexpf(static_cast<float>(8 + fraction), exponent - 10);
  return (x & 0x80) != 0 ? -size : size;
}
inline u32 float_to_e4m3(float x) {
  const u32 sign = __float_as_uint(x) >> 24 & 0x80u;
  const float size = fabsf(x);
  if (x != x) return 0x7f;
  if (size >= 448.0f) return sign | 0x7eu;
  if (size < 0x1p-6f) return sign | static_cast<u32>(lrintf(size * 0x1p9f));  // in steps of 2^-9
  const u32 bits = __float_as_uint(size), rounded = bits + 0x7ffffu + (bits >> 20 & 1u);
  return sign | ((rounded >> 20) - (120u << 3));
}
inline u32 pack_e4m3(float a, float b, float c, float d) {
  return float_to_e4m3(a) | float_to_e4m3(b) << 8 | float_to_e4m3(c) << 16 | float_to_e4m3(d) << 24;
}

inline float exp2_fast(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}

inline float reciprocal_fast(float x) { return 1.0f / x; }

}  // namespace attune::kernel
