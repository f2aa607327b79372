// From raw products to the contract's masked scores, element by element of a warp's tile.
#pragma once

#include <attune/arch/global.cuh>
#include <attune/part/element.cuh>
#include <attune/part/sequence.cuh>

namespace attune::kernel {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

// What a softmax's scores count in. Raw products are multiplied by the scale in its exponential, which takes
// a positive one.
enum class Units { products, natural, powers_of_two };
constexpr Units units_of(const PortableSpec& spec) {
  return spec.bias || spec.general ? Units::natural : Units::products;
}

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }

// cap * tanh(score / cap) = whole + rest, and the derivative by the score, 1 - tanh^2. The whole is exact
// and near the sum, so that the rest keeps bits that the sum would not: below tanh(0.55) the score itself
// and u - tanh u = u^3 (1/3 - ...), a minimax polynomial to 7e-8; above it +-cap and what tanh lacks to 1,
// 2 / (e^2u + 1).
struct Softcapped {
  float whole, rest, slope;
  [[nodiscard]] __device__ __forceinline__ float value() const { return whole + rest; }
};
__device__ __forceinline__ Softcapped softcapped(float score, float cap) {
  const float u = score / cap, a = fabsf(u);
  if (a < 0.55f) {
    const float w = u * u;
    float g = fmaf(0.0066150827f, w, -0.02131239f);
    g = fmaf(g, w, 0.05391001f);
    g = fmaf(g, w, -0.13333118f);
    g = fmaf(g, w, 0.3333333f);
    const float less = w * g, t = fmaf(-u, less, u);
    return {score, -score * less, 1.0f - t * t};
  }
  const float lacks = 2.0f / (exp2_fast(a * (2.0f * kLog2E)) + 1.0f);
  return {copysignf(cap, score), copysignf(cap, score) * -lacks, lacks * (2.0f - lacks)};
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
      const int bytes = bias_bytes();
      bias = static_cast<const char*>(p.bias.data) +
             (b * p.bias.b_stride + h * p.bias.h_stride) * bytes;
      bias_by_four = bias_k_stride == 1 && bias_q_stride % 4 == 0 &&
                     reinterpret_cast<u64>(bias) % (4 * bytes) == 0;
    }
    if (general && p.alibi != nullptr) slope = p.alibi[b * p.alibi_b_stride + h * p.alibi_h_stride];
  }

  [[nodiscard]] __device__ __forceinline__ float bias_at(int i, int j) const {
    const i64 at = i * bias_q_stride + j * bias_k_stride;
    if (bias_kind == BiasKind::boolean) return bias[at] != 0 ? 0.0f : -infinity();
    return load_element(bias, at, bias_element);
  }

  // Bytes of one element of the bias.
  [[nodiscard]] __device__ __forceinline__ int bias_bytes() const {
    if (bias_kind == BiasKind::boolean) return 1;
    return bias_element == static_cast<int>(Element::f32) ? 4 : 2;
  }

  // Of four neighbours loaded together, as floats.
  template <BiasKind kKind, Element kElement>
  static __device__ __forceinline__ float bias_of(const u32 (&raw)[4], int e) {
    if constexpr (kKind == BiasKind::boolean) {
      return (raw[0] >> 8 * e & 255u) != 0 ? 0.0f : -infinity();
    } else if constexpr (kElement == Element::f32) {
      return __uint_as_float(raw[e]);
    } else {
      return Elements<kElement>::to_float(static_cast<unsigned short>(raw[e / 2] >> e % 2 * 16));
    }
  }

  // The contract's steps 1 to 3 for one raw product. A bias of -inf masks out whatever the product.
  [[nodiscard]] __device__ __forceinline__ float score(float product, int i, int j,
                                                       float bias_value) const {
    float s = product * scale;
    if (softcap > 0) s = softcapped(s, softcap).value();
    s = bias_value == -infinity() ? -infinity() : s + bias_value;
    if (slope != 0.0f) s -= slope * fabsf(static_cast<float>(i + shift - j));
    return s;
  }
};

// The bias of a warp's scores. The loads start before the products and arrive behind them.
template <typename W>
struct BiasTile {
  static constexpr int kGroups = W::kKeyTiles / 2;
  u32 raw[W::kRowTiles][2][kGroups][4];  // of four neighbouring keys, as loaded

  // Key e of a group of four.
  static constexpr int key_of_four(int group, int e) { return W::key_at(2 * group + e / 2, e % 2); }

  // Calls body(m, half, group) for every four keys of this thread.
  template <typename Body>
  static __device__ __forceinline__ void for_each(const Body& body) {
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int n = 0; n < kGroups; ++n) body(m, half, n);
      }
    }
  }

  // `row` is this thread's first query; those past `last_row` and keys from `sk` on are not read.
  __device__ __forceinline__ void load(const ScoreTerms& terms, int row, int last_row, int j,
                                       int sk) {
    if (terms.bias_kind == BiasKind::none) return;
    if (terms.bias_kind == BiasKind::boolean) {
      load_by<1>(terms, row, last_row, j, sk);
    } else if (terms.bias_element == static_cast<int>(Element::f32)) {
      load_by<4>(terms, row, last_row, j, sk);
    } else {
      load_by<2>(terms, row, last_row, j, sk);
    }
  }

  template <int kBytes>
  __device__ __forceinline__ void load_by(const ScoreTerms& terms, int row, int last_row, int j,
                                          int sk) {
    const int key = j + W::first_key();
    if (terms.bias_by_four && j + W::kWarpKeys <= sk) {
      for_each([&](int m, int half, int n) {
        const int i = smaller(row + 16 * m + 8 * half, last_row);
        load_four<kBytes>(raw[m][half][n],
                          terms.bias + (i * terms.bias_q_stride + key + 16 * n) * kBytes);
      });
    } else {
      for_each([&](int m, int half, int n) {
        const int i = smaller(row + 16 * m + 8 * half, last_row);
        const char* from = terms.bias + i * terms.bias_q_stride * kBytes;
#pragma unroll
        for (int w = 0; w < kBytes; ++w) raw[m][half][n][w] = 0;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int at = key + key_of_four(n, e);
          const u32 bits =
              at < sk ? load_bits<kBytes>(from + at * terms.bias_k_stride * kBytes) : 0;
          raw[m][half][n][e * kBytes / 4] |= bits << e * kBytes * 8 % 32;
        }
      });
    }
  }

  // Of a group, `from` being where its first one lies.
  template <int kBytes>
  static __device__ __forceinline__ void load_four(u32 (&to)[4], const char* from) {
    if constexpr (W::kTogether == 4) {
      u32 x[kBytes];
      load_global(x, from);
#pragma unroll
      for (int w = 0; w < kBytes; ++w) to[w] = x[w];
    } else if constexpr (kBytes == 1) {
      to[0] = load_bits<2>(from) | load_bits<2>(from + key_of_four(0, 2)) << 16;
    } else {
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        u32 x[kBytes / 2];
        load_global(x, from + key_of_four(0, 2 * pair) * kBytes);
#pragma unroll
        for (int w = 0; w < kBytes / 2; ++w) to[kBytes / 2 * pair + w] = x[w];
      }
    }
  }

  template <int kBytes>
  static __device__ __forceinline__ u32 load_bits(const char* from) {
    if constexpr (kBytes == 1) return *reinterpret_cast<const unsigned char*>(from);
    if constexpr (kBytes == 2) return *reinterpret_cast<const unsigned short*>(from);
    if constexpr (kBytes == 4) return *reinterpret_cast<const u32*>(from);
  }

  // Raw products -> scores, as ScoreTerms::score() does for one; each feature in a pass of its own, so
  // that one that is not there costs one branch.
  __device__ __forceinline__ void apply(typename W::Scores& s, const ScoreTerms& terms, int row,
                                        int j) {
    scale_and_cap(s, terms);
    add(s, terms, row, j);
  }

  static __device__ __forceinline__ void scale_and_cap(typename W::Scores& s,
                                                       const ScoreTerms& terms) {
    for_each_score(s, [&](float& x, int, int, int, int) { x *= terms.scale; });
    if (terms.softcap > 0) {
      for_each_score(
          s, [&](float& x, int, int, int, int) { x = softcapped(x, terms.softcap).value(); });
    }
  }

  // Bias and ALiBi.
  __device__ __forceinline__ void add(typename W::Scores& s, const ScoreTerms& terms, int row,
                                      int j) {
    const int key = j + W::first_key();
    if (terms.bias_kind == BiasKind::boolean) {
      add_bias<BiasKind::boolean, Element::f32>(s);
    } else if (terms.bias_kind == BiasKind::additive) {
      if (terms.bias_element == static_cast<int>(Element::f32)) {
        add_bias<BiasKind::additive, Element::f32>(s);
      } else if (terms.bias_element == static_cast<int>(Element::f16)) {
        add_bias<BiasKind::additive, Element::f16>(s);
      } else {
        add_bias<BiasKind::additive, Element::bf16>(s);
      }
    }
    if (terms.slope != 0.0f) {
      for_each_score(s, [&](float& x, int m, int half, int n, int e) {
        const int distance = row + 16 * m + 8 * half + terms.shift - (key + key_of_four(n, e));
        x -= terms.slope * fabsf(static_cast<float>(distance));
      });
    }
  }

  // Calls body(score, m, half, group, key of four).
  template <typename Body>
  static __device__ __forceinline__ void for_each_score(typename W::Scores& s, const Body& body) {
    for_each([&](int m, int half, int n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) body(s[m][2 * n + e / 2][2 * half + e % 2], m, half, n, e);
    });
  }

  template <BiasKind kKind, Element kElement>
  __device__ __forceinline__ void add_bias(typename W::Scores& s) const {
    for_each_score(s, [&](float& x, int m, int half, int n, int e) {
      const float bias = ScoreTerms::bias_of<kKind, kElement>(raw[m][half][n], e);
      x = bias == -infinity() ? -infinity() : x + bias;
    });
  }
};

}  // namespace attune::kernel
