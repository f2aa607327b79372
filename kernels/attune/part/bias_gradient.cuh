// The gradient of a bias that is one and the same along no dimension: each of its elements is dS of one
// query and key, written by who computes it.
#pragma once

#include <attune/params.h>

#include <attune/arch/global.cuh>
#include <attune/part/element.cuh>

namespace attune::kernel {

// Of one sequence: [hq][sq][sk].
struct BiasWriter {
  char* data;    // null: nothing to write
  bool by_four;  // four neighbouring elements may be stored together

  static __device__ __forceinline__ int size(const BiasGradient& g) {
    return g.element == static_cast<int>(Element::f32) ? 4 : 2;
  }

  static __device__ __forceinline__ BiasWriter of(const BiasGradient& g, int b) {
    if (g.data == nullptr || g.tiles != 0) return {nullptr, false};
    char* const data = static_cast<char*>(g.data) + b * g.b_stride * size(g);
    const bool aligned = reinterpret_cast<u64>(data) % (4 * size(g)) == 0;
    return {data, aligned && g.k_stride == 1 && ((g.h_stride | g.q_stride) & 3) == 0};
  }

  // Elements of query i and keys from j, a multiple of four, on, as far as there are such.
  __device__ __forceinline__ void write(const BiasGradient& g, int h, int i, int j, float x0,
                                        float x1, float x2, float x3) const {
    if (i >= g.sq) return;
    const i64 at = h * g.h_stride + i * g.q_stride + j * g.k_stride;
    if (by_four && j + 4 <= g.sk) {
      if (g.element == static_cast<int>(Element::f32)) {
        reinterpret_cast<float4*>(data)[at / 4] = make_float4(x0, x1, x2, x3);
        return;
      }
      const bool f16 = g.element == static_cast<int>(Element::f16);
      reinterpret_cast<uint2*>(data)[at / 4] =
          f16 ? make_uint2(Elements<Element::f16>::pack(x0, x1),
                           Elements<Element::f16>::pack(x2, x3))
              : make_uint2(Elements<Element::bf16>::pack(x0, x1),
                           Elements<Element::bf16>::pack(x2, x3));
      return;
    }
    if (j < g.sk) store_element(data, at, g.element, x0);
    if (j + 1 < g.sk) store_element(data, at + g.k_stride, g.element, x1);
    if (j + 2 < g.sk) store_element(data, at + 2 * g.k_stride, g.element, x2);
    if (j + 3 < g.sk) store_element(data, at + 3 * g.k_stride, g.element, x3);
  }
};

}  // namespace attune::kernel
