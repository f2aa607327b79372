// The two ways of computing: one code path for both, so that they can't drift apart in meaning.
#pragma once

#include <attune/tensor.hpp>

#include "oracle/rounding.h"

namespace attune::oracle {

// The oracle: float64, nothing is rounded on the way.
struct Exact {
  using Real = double;
  static constexpr bool kRoundsScores = false;
  static constexpr bool kRoundsExponentials = false;
  static double round(double x) { return x; }
  static double round_o(double x) { return x; }
};

// The textbook eager computation in `dtype`: sums and functions in float32, every tensor between
// two operations rounded to the dtype.
template <DType dtype>
struct Plain {
  using Real = float;
  static constexpr bool kRoundsScores = dtype != DType::f32;
  static constexpr bool kRoundsExponentials = false;
  static float round(float x) {
    if constexpr (dtype == DType::f16) return round_to_f16(x);
    if constexpr (dtype == DType::bf16) return round_to_bf16(x);
    return x;
  }
  static float round_o(float x) { return round(x); }
};

// Three bits hold no tensor of scores, and numbers of at most 1 would leave most of E4M3's range empty: S
// stays in float32, and P is rounded before it is normalised, times 2^8, so that its largest is 256.
template <>
struct Plain<DType::f8e4m3> {
  using Real = float;
  static constexpr bool kRoundsScores = false;
  static constexpr bool kRoundsExponentials = true;
  static float round(float x) { return x; }
  static float round_exponential(float p) {
    return round_to_f8e4m3(kExponentialFactor * p) / kExponentialFactor;
  }
  static float round_o(float x) { return round_to_bf16(x); }

  static constexpr float kExponentialFactor = 256.0F;
};

}  // namespace attune::oracle
