// The element types, as bits in memory and as float in registers.
#pragma once

#include <attune/params.h>
#include <attune/spec/portable.h>

#include <attune/arch/convert.cuh>

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
  static __device__ __forceinline__ float to_float(Bits x) { return f16_to_float(x); }
  static __device__ __forceinline__ Bits from_float(float x) { return float_to_f16(x); }
  // The lower half holds a.
  static __device__ __forceinline__ u32 pack(float a, float b) { return pack_f16(a, b); }
  // Not 0, but for signs, as soon as one of the x in two halves was not finite.
  static __device__ __forceinline__ u32 add_zeros(u32 x, u32 sum) { return add_zeros_f16(x, sum); }
};

template <>
struct Elements<Element::bf16> {
  using Bits = unsigned short;
  static __device__ __forceinline__ float to_float(Bits x) {
    return __uint_as_float(static_cast<u32>(x) << 16);
  }
  static __device__ __forceinline__ Bits from_float(float x) { return float_to_bf16(x); }
  static __device__ __forceinline__ u32 pack(float a, float b) { return pack_bf16(a, b); }
  static __device__ __forceinline__ u32 add_zeros(u32 x, u32 sum) { return add_zeros_bf16(x, sum); }
};

// Read alone: what is computed of eighths is written as output_of() says.
template <>
struct Elements<Element::f8e4m3> {
  using Bits = unsigned char;
  static __device__ __forceinline__ float to_float(Bits x) { return e4m3_to_float(x); }
  static __device__ __forceinline__ u32 pack(float a, float b, float c, float d) {
    return pack_e4m3(a, b, c, d);
  }
};

// Two neighbours of a row of d elements, from an even column on. kAligned: they lie together.
template <Element kElement, bool kAligned>
__device__ __forceinline__ void store_pair(typename Elements<kElement>::Bits* row, i64 d_stride,
                                           int column, int d, float a, float b) {
  using E = Elements<kElement>;
  if constexpr (kAligned) {
    if (column >= d) return;
    if constexpr (kElement == Element::f32) {
      *reinterpret_cast<float2*>(row + column) = make_float2(a, b);
    } else {
      *reinterpret_cast<u32*>(row + column) = E::pack(a, b);
    }
  } else {
    if (column < d) row[column * d_stride] = E::from_float(a);
    if (column + 1 < d) row[(column + 1) * d_stride] = E::from_float(b);
  }
}

// An element of a tensor whose type is known only at run time.
__device__ __forceinline__ float load_element(const void* data, i64 index, int element) {
  if (element == static_cast<int>(Element::f32)) return static_cast<const float*>(data)[index];
  const auto bits = static_cast<const unsigned short*>(data)[index];
  return element == static_cast<int>(Element::f16) ? Elements<Element::f16>::to_float(bits)
                                                   : Elements<Element::bf16>::to_float(bits);
}

__device__ __forceinline__ void store_element(void* data, i64 index, int element, float x) {
  if (element == static_cast<int>(Element::f32)) {
    static_cast<float*>(data)[index] = x;
  } else {
    static_cast<unsigned short*>(data)[index] = element == static_cast<int>(Element::f16)
                                                    ? Elements<Element::f16>::from_float(x)
                                                    : Elements<Element::bf16>::from_float(x);
  }
}

}  // namespace attune::kernel
