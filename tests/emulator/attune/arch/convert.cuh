// As kernels/attune/arch/convert.cuh, on the host.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

inline float f16_to_float(unsigned short x) {
  _Float16 y;
  std::memcpy(&y, &x, 2);
  return static_cast<float>(y);
}

inline unsigned short float_to_f16(float x) {
  const auto y = static_cast<_Float16>(x);
  unsigned short bits;
  std::memcpy(&bits, &y, 2);
  return bits;
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

inline float exp2_fast(float x) {
  const float y = std::exp2(x);
  return std::fabs(y) < 1.17549435e-38f ? 0.0f : y;
}

}  // namespace attune::kernel
