// From raw products to the contract's masked scores, element by element of a warp's tile.
#pragma once

#include <attune/part/element.cuh>
#include <attune/part/sequence.cuh>

namespace attune::kernel {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }

// 2^x to 2 units in the last place; exact at 0, 0 at -inf.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// tanh to a few units in the last place: its power series near 0, where 1 - 2 / (e^2x + 1) cancels.
__device__ __forceinline__ float tanh_accurate(float x) {
  const float square = x * x;
  const float series =
      x + x * square * (-0.33333334f + square * (0.13333334f + square * (-0.053968254f + square * 0.021869488f)));
  const float far = 1.0f - 2.0f / (exp2_fast(fabsf(x) * (2 * kLog2E)) + 1.0f);
  return square < 0.0625f ? series : copysignf(far, x);
}

// The features of one (batch, head), ready to be applied to scores.
struct ScoreTerms {
  float scale, softcap;
  BiasKind bias_kind;
  int bias_element;
  const char* bias;  // of (b, h, 0, 0)
  i64 bias_q_stride, bias_k_stride;
  bool bias_by_four;  // four neighbouring keys of any row can be loaded at once
  float slope;
  int shift;  // sk - sq

  __device__ __forceinline__ ScoreTerms(const ForwardParams& p, const Sequence& s, int b, int h,
                                        bool bias_there, bool general)
      : scale(p.scale),
        softcap(general ? p.softcap : 0.0f),
        bias_kind(bias_there ? p.bias.kind : BiasKind::none),
        bias_element(p.bias.element),
        bias(nullptr),
        bias_q_stride(p.bias.q_stride),
        bias_k_stride(p.bias.k_stride),
        bias_by_four(false),
        slope(0.0f),
        shift(s.sk - s.sq) {
    if (bias_kind != BiasKind::none) {
      const int bytes = bias_kind == BiasKind::boolean ? 1 : bias_element == 0 ? 4 : 2;
      bias = static_cast<const char*>(p.bias.data) +
             (b * p.bias.b_stride + h * p.bias.h_stride) * bytes;
      bias_by_four = bias_k_stride == 1 && bias_q_stride % 4 == 0 &&
                     reinterpret_cast<u64>(bias) % (4 * bytes) == 0;
    }
    if (general && p.alibi != nullptr) slope = p.alibi[b * p.alibi_b_stride + h * p.alibi_h_stride];
  }

  // The bias of keys j .. j + 3 of query i as floats, -inf for a boolean false; keys at or past
  // `end` are not read. j is a multiple of 4.
  __device__ __forceinline__ void load_bias(int i, int j, int end, float (&out)[4]) const {
    const i64 row = i * bias_q_stride;
    if (bias_by_four && j + 4 <= end) {
      if (bias_kind == BiasKind::boolean) {
        const u32 bits = *reinterpret_cast<const u32*>(bias + row + j);
#pragma unroll
        for (int e = 0; e < 4; ++e) out[e] = (bits >> 8 * e & 255u) != 0 ? 0.0f : -infinity();
      } else if (bias_element == static_cast<int>(Element::f32)) {
        const float4 x = *reinterpret_cast<const float4*>(bias + (row + j) * 4);
        out[0] = x.x, out[1] = x.y, out[2] = x.z, out[3] = x.w;
      } else {
        const uint2 x = *reinterpret_cast<const uint2*>(bias + (row + j) * 2);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const auto bits = static_cast<unsigned short>((e < 2 ? x.x : x.y) >> e % 2 * 16);
          out[e] = bias_element == static_cast<int>(Element::f16)
                       ? Elements<Element::f16>::to_float(bits)
                       : Elements<Element::bf16>::to_float(bits);
        }
      }
      return;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) out[e] = j + e < end ? bias_at(i, j + e) : 0.0f;
  }

  [[nodiscard]] __device__ __forceinline__ float bias_at(int i, int j) const {
    const i64 at = i * bias_q_stride + j * bias_k_stride;
    if (bias_kind == BiasKind::boolean) return bias[at] != 0 ? 0.0f : -infinity();
    return load_element(bias, at, bias_element);
  }

  // The contract's steps 1 to 3 for one raw product. A bias of -inf masks out whatever the product.
  [[nodiscard]] __device__ __forceinline__ float score(float product, int i, int j,
                                                       float bias_value) const {
    float s = product * scale;
    if (softcap > 0) s = softcap * tanh_accurate(s / softcap);
    if (bias_kind != BiasKind::none) {
      s = bias_value == -infinity() ? -infinity() : s + bias_value;
    }
    if (slope != 0.0f) s -= slope * fabsf(static_cast<float>(i + shift - j));
    return s;
  }
};

}  // namespace attune::kernel
