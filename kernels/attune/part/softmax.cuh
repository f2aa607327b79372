// Online softmax of a warp's rows on C fragments.
//
// A row's P, its sum and its O all count from a reference m, so that any m gives the same result as
// long as nothing overflows and exponents are small enough to be exact. Where P has the range of
// float32 (bf16 and plain f32), m is the maximum of the first block that the row meets, and is lifted
// after a block whose sum grew past kLift: no maximum is taken in between, and exponentials and
// products overlap. Where a score exceeds m so far within one block that the sum passes kMostSum, the
// tile is walked again with `careful`: m then follows the maximum block by block, as it always does
// for f16, and for f32 with scores that tend to grow (ALiBi, biases).
//
// Paired warps hold the same references, each the sums over its own keys.
#pragma once

#include <attune/part/score.cuh>
#include <attune/part/warp_pair.cuh>

namespace attune::kernel {

// What a row's O is to be multiplied with, and its LSE.
struct FinishedRow {
  float inverse, lse;
};

// Adds the sink to a row's sum, which counts from `reference`. The LSE only where it is asked for, and may be.
template <bool kNatural, Element kElement, bool kLse = true>
__device__ __forceinline__ FinishedRow finish_row(const ForwardParams& p, int h, float reference,
                                                  float sum) {
  float weight = 1.0f;
  if (p.sink != nullptr) {
    const float logit = p.sink[h * p.sink_stride];
    const float sink = kNatural ? logit : logit * kLog2E;
    const float next = fmaxf(reference, sink);
    if (next != -infinity()) {
      const float unit = kNatural ? kLog2E : 1.0f;
      weight = exp2_fast((reference - next) * unit);
      sum = sum * weight + exp2_fast((sink - next) * unit);
      reference = next;
    }
  }
  const float unit = kNatural ? 1.0f : kLn2;
  FinishedRow row{0.0f, -infinity()};
  if (sum > 0.0f || sum != sum) {
    row.inverse = kElement == Element::f32 ? weight / sum : weight * reciprocal_fast(sum);
  }
  if (kLse && p.lse.data != nullptr && sum != 0.0f) row.lse = reference * unit + logf(sum);
  return row;
}

// Natural scores are the contract's, and references count in powers of e; they are subtracted before log2(e)
// is multiplied: a mask of the lowest float would overflow. References of others count in powers of two.
template <typename W, Units kUnits>
struct Softmax {
  static constexpr bool kNatural = kUnits == Units::natural;
  static constexpr bool kF32 = W::kElement == Element::f32;
  // Where m need not follow each maximum: weights far above 1 are as precise as those below. For f16, which
  // has room for 2^15, only if each block's are looked at; what that costs was measured on Hopper alone.
  static constexpr bool kByBlock = W::kElement == Element::f16 && W::kTogether == 2;
  static constexpr bool kWide = W::kElement == Element::bf16 || (kF32 && !kNatural) || kByBlock;
  // f32 has no error to spare: an exponent of 16 is 2^-20 wrong.
  static constexpr float kSlack = kF32 ? 1.0f : 8.0f;  // in powers of two, where m follows
  static constexpr float kLift = kF32 ? 16.0f : kByBlock ? 8192.0f : 1048576.0f;  // 2^4, 2^13, 2^20
  static constexpr float kSlackWeight =
      64.0f;  // of a block, where its row is not lifted with others
  static constexpr float kMostSum = kF32 ? 512.0f : 1.2379400392853803e27f;  // 2^9, 2^90
  float m[W::kRowTiles][2], l[W::kRowTiles][2];
  const float* factor_at;  // raw product -> power of two; stays where the kernel's parameters lie
  // m follows the maximum: never any more, until every row has met a key, or always.
  enum Careful { kNever, kAtFirst, kAlways } careful;

  __device__ __forceinline__ explicit Softmax(const ForwardParams& p, Careful careful)
      : factor_at(&p.scale_log2), careful(careful) {
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) {
      m[i][0] = m[i][1] = -infinity();
      l[i][0] = l[i][1] = 0.0f;
    }
  }

  // 2^ of a difference of references.
  static __device__ __forceinline__ float power(float difference) {
    return exp2_fast(kNatural ? difference * kLog2E : difference);
  }

  // Moves the references up to the maxima of these scores where they have to, and sees who still has none.
  template <typename Rescale>
  __device__ __forceinline__ void settle(const typename W::Scores& s, const WarpPair<W>& pair,
                                         const Rescale& rescale) {
    follow(s, pair, rescale);
    if (kWide && careful != kAlways) {
      bool without = false;
#pragma unroll
      for (int i = 0; i < W::kRowTiles; ++i) {
        without |= m[i][0] == -infinity() || m[i][1] == -infinity();
      }
      careful = __any_sync(~0u, without) ? kAtFirst : kNever;
    }
  }

  // Moves the references up to the maxima of these scores where they have to. Calls
  // rescale(row tile, half, alpha) for all rows if some did: their O is to be multiplied by alpha.
  template <typename Rescale>
  __device__ __forceinline__ void follow(const typename W::Scores& s, const WarpPair<W>& pair,
                                         const Rescale& rescale) {
    float top[W::kRowTiles][2];
    bool move = false;
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float x = s[i][0][2 * half];
#pragma unroll
        for (int n = 0; n < W::kKeyTiles; ++n) {
          x = fmaxf(x, fmaxf(s[i][n][2 * half], s[i][n][2 * half + 1]));
        }
        x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
        x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
        top[i][half] = kUnits == Units::products ? x * *factor_at : x;
        move |= top[i][half] > m[i][half] + (kNatural ? kSlack * kLn2 : kSlack);
      }
    }
    move = pair.any(move);
    if (move) {
      pair.larger_of(top);
#pragma unroll
      for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float next = fmaxf(top[i][half], m[i][half]);
          const float alpha = next == -infinity() ? 1.0f : power(m[i][half] - next);
          m[i][half] = next;
          l[i][half] *= alpha;
          rescale(i, half, alpha);
        }
      }
    }
  }

  // The first references of all rows: of the score of the first key, which each row attends to, or, where weights
  // far above 1 have to be brought back, of the largest of a few. Weights above 1 have room (kWide).
  __device__ __forceinline__ void refer_to_some(const typename W::Scores& s) {
    static_assert(kWide);
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float x = s[i][0][2 * half];
        if constexpr (kByBlock) {
          constexpr int kMiddle = W::kKeyTiles / 4;  // within the first half of the keys
          x = fmaxf(fmaxf(x, s[i][0][2 * half + 1]),
                    fmaxf(s[i][kMiddle][2 * half], s[i][kMiddle][2 * half + 1]));
          x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
          x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
        } else {
          x = __shfl_sync(~0u, x, 0, 4);
        }
        m[i][half] = kUnits == Units::products ? x * *factor_at : x;
      }
    }
    refer_to_any();
  }

  // For rows whose scores so far are all -inf, any reference will do.
  __device__ __forceinline__ void refer_to_any() {
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (m[i][half] == -infinity()) m[i][half] = 0.0f;
      }
    }
  }

  // Whether ordinary scores could overflow beside some row's reference.
  [[nodiscard]] __device__ __forceinline__ bool refers_low() const {
    constexpr float kLow = -1e30f;
    bool any = false;
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) any |= m[i][0] < kLow || m[i][1] < kLow;
    return any;
  }

  // Rows of O, or of P.
  template <int kTiles>
  static __device__ __forceinline__ void multiply(float (&x)[W::kRowTiles][kTiles][4], int i,
                                                  int half, float alpha) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      x[i][n][2 * half] *= alpha;
      x[i][n][2 * half + 1] *= alpha;
    }
  }

  // Scores -> P, and, with kSums, their sums, of some column tiles. Returns this thread's largest sum, of these
  // tiles if kByBlock.
  template <bool kSums = true, int kFirst = 0, int kEnd = W::kKeyTiles>
  __device__ __forceinline__ float powers(typename W::Scores& s) {
    float top = 0.0f;
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // A row that has met no key yet has -inf: its exponents must be -inf, not NaN.
        const float base = m[i][half] == -infinity() ? 0.0f : m[i][half];
        float sum = 0.0f;
#pragma unroll
        for (int n = kFirst; n < kEnd; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& x = s[i][n][2 * half + e];
            if constexpr (kUnits == Units::products) {
              x = exp2_fast(x * *factor_at - base);
            } else {
              x = power(x - base);
            }
            if (kSums) sum += x;
          }
        }
        if constexpr (!kSums) sum = s[i][kEnd - 1][2 * half + 1];
        if constexpr (kSums) l[i][half] += sum;
        top = fmaxf(top, kByBlock || !kSums ? sum : l[i][half]);
      }
    }
    return top;
  }

  // After powers(): brings sums that grew large back to where they have room. Calls rescale(row tile,
  // half, alpha) for those rows: the sum of their O with this block is to be multiplied by alpha.
  template <typename Rescale>
  __device__ __forceinline__ void lift(const WarpPair<W>& pair, const Rescale& rescale) {
    if constexpr (kWide) {
      float tops[W::kRowTiles][2];
#pragma unroll
      for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float sum = l[i][half];
          sum = fmaxf(sum, __shfl_xor_sync(~0u, sum, 1));
          tops[i][half] = fmaxf(sum, __shfl_xor_sync(~0u, sum, 2));
        }
      }
      pair.larger_of(tops);
#pragma unroll
      for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (tops[i][half] > kLift) lift_row(i, half, tops[i][half], rescale);
        }
      }
    }
  }

  // `top`, of the row, is to come to between 1 and 2; one that is too large for that marks the row.
  template <typename Rescale>
  __device__ __forceinline__ void lift_row(int i, int half, float top, const Rescale& rescale) {
    if (top > kMostSum) {
      l[i][half] = infinity();
      return;
    }
    const int exponent = static_cast<int>(__float_as_uint(top) >> 23) - 127;
    m[i][half] += kNatural ? exponent * kLn2 : exponent;
    const float alpha = power(kNatural ? -exponent * kLn2 : -exponent);
    l[i][half] *= alpha;
    rescale(i, half, alpha);
  }

  // The same for f16: by a block's largest weight, which is what has to have room, as sums need not. Calls rescale for
  // all rows, by all lanes.
  template <typename Rescale>
  __device__ __forceinline__ void lift_by_block(const typename W::Scores& s,
                                                const Rescale& rescale) {
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = 0.0f;
#pragma unroll
        for (int n = 0; n < W::kKeyTiles; ++n) {
          top = fmaxf(top, fmaxf(s[i][n][2 * half], s[i][n][2 * half + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float alpha = 1.0f;
        if (top > kSlackWeight) lift_row(i, half, top, [&](int, int, float by) { alpha = by; });
        rescale(i, half, alpha);
      }
    }
  }

  // Whether some sum has overflowed, or is about to, although its row need not have.
  [[nodiscard]] __device__ __forceinline__ bool overflowed() const {
    bool any = false;
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) any |= l[i][0] > kMostSum || l[i][1] > kMostSum;
    return any;
  }

  // Once finish() has run.
  float inverse[W::kRowTiles][2], lse[W::kRowTiles][2];

  // Sums over the lanes of a row, and over a pair.
  __device__ __forceinline__ void sum_up(const WarpPair<W>& pair) {
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        l[i][half] += __shfl_xor_sync(~0u, l[i][half], 1);
        l[i][half] += __shfl_xor_sync(~0u, l[i][half], 2);
      }
    }
    pair.sync();
    pair.sum_of(l);
  }

  // From whole sums; adds the sink.
  template <bool kLse = true>
  __device__ __forceinline__ void finish(const ForwardParams& p, int h) {
#pragma unroll
    for (int i = 0; i < W::kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const FinishedRow row =
            finish_row<kNatural, W::kElement, kLse>(p, h, m[i][half], l[i][half]);
        inverse[i][half] = row.inverse;
        lse[i][half] = row.lse;
      }
    }
  }
};

}  // namespace attune::kernel
