// Conversions between float and the narrow types, and 2^x.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

__device__ __forceinline__ float f16_to_float(unsigned short x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}

__device__ __forceinline__ unsigned short float_to_f16(float x) {
  unsigned short y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ unsigned short float_to_bf16(float x) {
#if __CUDA_ARCH__ >= 800
  unsigned short y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
#else
  const u32 bits = __float_as_uint(x);
  if (x != x) return static_cast<unsigned short>(bits >> 16 | 0x40u);  // stays a quiet NaN
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
}

// Two in one register; the lower half holds a.
__device__ __forceinline__ u32 pack_f16(float a, float b) {
#if __CUDA_ARCH__ >= 800
  u32 y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(b), "f"(a));
  return y;
#else
  return float_to_f16(a) | static_cast<u32>(float_to_f16(b)) << 16;
#endif
}

__device__ __forceinline__ u32 pack_bf16(float a, float b) {
#if __CUDA_ARCH__ >= 800
  u32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(b), "f"(a));
  return y;
#else
  return float_to_bf16(a) | static_cast<u32>(float_to_bf16(b)) << 16;
#endif
}

// sum + 0 x of two in one register: NaN as soon as one x was not finite. sm_80 and later.
__device__ __forceinline__ u32 add_zeros_f16(u32 x, u32 sum) {
  asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(0u));
  return sum;
}
__device__ __forceinline__ u32 add_zeros_bf16(u32 x, u32 sum) {
  asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(0u));
  return sum;
}

// E4M3, whose conversions exist from sm_89 on: in range they round to the nearest, and beyond it they saturate.
__device__ __forceinline__ float e4m3_to_float(unsigned char x) {
  u32 two;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(two) : "h"(static_cast<unsigned short>(x)));
  return f16_to_float(static_cast<unsigned short>(two));
}
// Four in one register; the lowest byte holds a.
__device__ __forceinline__ u32 pack_e4m3(float a, float b, float c, float d) {
  u32 y;
  asm("{\n .reg .b16 low, high;\n"
      " cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      " cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      " mov.b32 %0, {low, high};\n}"
      : "=r"(y)
      : "f"(a), "f"(b), "f"(c), "f"(d));
  return y;
}

// 2^x to 2 units in the last place; exact at 0, 0 at -inf.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x to 1 unit in the last place.
__device__ __forceinline__ float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace attune::kernel
