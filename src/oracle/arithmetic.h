// The two ways of computing: one code path for both, so that they can't drift apart in meaning.
#pragma once

#include <attune/tensor.hpp>

#include "oracle/rounding.h"

namespace attune::oracle {

// The oracle: float64, nothing is rounded on the way.
struct Exact {
  using Real = double;
  static constexpr bool kRoundsScores = false;
  static double round(double x) { return x; }
};

// The textbook eager computation in `dtype`: sums and functions in float32, every tensor between
// two operations rounded to the dtype.
template <DType dtype>
struct Plain {
  using Real = float;
  static constexpr bool kRoundsScores = dtype != DType::f32;
  static float round(float x) {
    if constexpr (dtype == DType::f16) return round_to_f16(x);
    if constexpr (dtype == DType::bf16) return round_to_bf16(x);
    return x;
  }
};

}  // namespace attune::oracle
