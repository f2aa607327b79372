// The three element types, as bits in memory and as float in registers.
#pragma once

#include <attune/params.h>
#include <attune/spec/portable.h>

namespace attune::kernel {

template <Element>
struct Elements;

template <>
struct Elements<Element::f32> {
  using Bits = u32;
  static __device__ __forceinline__ float to_float(Bits x) { return __uint_as_float(x); }
  static __device__ __forceinline__ Bits from_float(float x) { return __float_as_uint(x); }
};

template <>
struct Elements<Element::f16> {
  using Bits = unsigned short;
  static __device__ __forceinline__ float to_float(Bits x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
  }
  static __device__ __forceinline__ Bits from_float(float x) {
    Bits y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
  }
  // The lower half holds a.
  static __device__ __forceinline__ u32 pack(float a, float b) {
#if __CUDA_ARCH__ >= 800
    u32 y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(b), "f"(a));
    return y;
#else
    return from_float(a) | static_cast<u32>(from_float(b)) << 16;
#endif
  }
};

template <>
struct Elements<Element::bf16> {
  using Bits = unsigned short;
  static __device__ __forceinline__ float to_float(Bits x) {
    return __uint_as_float(static_cast<u32>(x) << 16);
  }
  static __device__ __forceinline__ Bits from_float(float x) {
#if __CUDA_ARCH__ >= 800
    Bits y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#else
    const u32 bits = __float_as_uint(x);
    if (x != x) return static_cast<Bits>(bits >> 16 | 0x40u);  // stays a quiet NaN
    return static_cast<Bits>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
  }
  static __device__ __forceinline__ u32 pack(float a, float b) {
#if __CUDA_ARCH__ >= 800
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(b), "f"(a));
    return y;
#else
    return from_float(a) | static_cast<u32>(from_float(b)) << 16;
#endif
  }
};

// An element of a tensor whose type is known only at run time.
__device__ __forceinline__ float load_element(const void* data, i64 index, int element) {
  if (element == static_cast<int>(Element::f32)) return static_cast<const float*>(data)[index];
  const auto bits = static_cast<const unsigned short*>(data)[index];
  return element == static_cast<int>(Element::f16) ? Elements<Element::f16>::to_float(bits)
                                                   : Elements<Element::bf16>::to_float(bits);
}

}  // namespace attune::kernel
