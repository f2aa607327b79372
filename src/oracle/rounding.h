// Rounding to float32, float16, bfloat16 and float8 E4M3: to nearest, ties to even, subnormals,
// infinities and NaN as IEEE 754 has them; E4M3, which has no infinities, saturates. Nothing here
// depends on the machine's own half-precision support.
#pragma once

#include <attune/tensor.hpp>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace attune::oracle {

// The nearest bfloat16 of x, as a float.
[[nodiscard]] inline float round_to_bf16(float x) {
  if (std::isnan(x)) return x;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  bits +=
      0x7FFFU + ((bits >> 16) & 1U);  // a carry out of the mantissa is the next exponent, or inf
  return std::bit_cast<float>(bits & 0xFFFF0000U);
}

// The nearest float16 of x, as a float.
[[nodiscard]] inline float round_to_f16(float x) {
  const float magnitude = std::fabs(x);
  if (magnitude < 0x1p-14F) {
    // Subnormal: float16's step is 2^-24 here, which is float32's step in [0.5, 1).
    return std::copysign((magnitude + 0.5F) - 0.5F, x);
  }
  if (!(magnitude < 65520.0F)) {  // half a step above the largest, or NaN
    return std::isnan(x) ? x : std::copysign(std::numeric_limits<float>::infinity(), x);
  }
  std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  bits += 0x0FFFU + ((bits >> 13) & 1U);
  return std::bit_cast<float>(bits & 0xFFFFE000U);
}

// The nearest float8 E4M3 of x, as a float; 448 of its sign for what is larger.
[[nodiscard]] inline float round_to_f8e4m3(float x) {
  if (std::isnan(x)) return x;
  const float magnitude = std::fabs(x);
  if (magnitude < 0x1p-6F) {
    // Subnormal: the step is 2^-9 here, which is float32's step in [2^14, 2^15).
    return std::copysign((magnitude + 0x1p14F) - 0x1p14F, x);
  }
  std::uint32_t bits = std::bit_cast<std::uint32_t>(magnitude);
  bits += 0x7FFFFU + ((bits >> 20) & 1U);
  return std::copysign(std::fmin(std::bit_cast<float>(bits & 0xFFF00000U), 448.0F), x);
}

// x as a float32 with every bit cut off and, when something was lost, the last bit set ("round to
// odd"): rounding that to fewer bits gives what rounding x itself would have given.
[[nodiscard]] inline float round_to_odd(double x) {
  const float nearest = static_cast<float>(x);
  if (std::isnan(x) || static_cast<double>(nearest) == x) return nearest;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(x)) --bits;
  return std::bit_cast<float>(bits | 1U);
}

// The nearest value of `dtype` (f64, f32, f16, bf16 or f8e4m3) to x, as a double; past its range
// infinite, or f8e4m3's largest.
[[nodiscard]] inline double round_to(DType dtype, double x) {
  switch (dtype) {
    case DType::f32:
      return static_cast<double>(static_cast<float>(x));
    case DType::f16:
      return static_cast<double>(round_to_f16(round_to_odd(x)));
    case DType::bf16:
      return static_cast<double>(round_to_bf16(round_to_odd(x)));
    case DType::f8e4m3:
      return static_cast<double>(round_to_f8e4m3(round_to_odd(x)));
    default:
      return x;
  }
}

[[nodiscard]] inline float float_from_f16(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1FU;
  const std::uint32_t mantissa = bits & 0x3FFU;
  if (exponent == 0x1FU) return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13));
  if (exponent == 0) {
    return std::copysign(static_cast<float>(mantissa) * 0x1p-24F, std::bit_cast<float>(sign));
  }
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

[[nodiscard]] inline float float_from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

[[nodiscard]] inline float float_from_f8e4m3(std::uint8_t bits) {
  const float sign = (bits & 0x80U) != 0 ? -1.0F : 1.0F;
  const std::uint32_t exponent = (bits >> 3) & 0xFU;
  const std::uint32_t mantissa = bits & 0x7U;
  if ((bits & 0x7FU) == 0x7FU) return std::numeric_limits<float>::quiet_NaN();
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-9F;
  return sign * std::bit_cast<float>(((exponent + 120U) << 23) | (mantissa << 20));
}

[[nodiscard]] inline std::uint16_t f16_from_double(double x) {
  const float rounded = round_to_f16(round_to_odd(x));
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(rounded);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const float magnitude = std::fabs(rounded);
  std::uint32_t rest = 0;
  if (std::isnan(rounded)) {
    rest = 0x7E00U;
  } else if (std::isinf(rounded)) {
    rest = 0x7C00U;
  } else if (magnitude < 0x1p-14F) {
    rest = static_cast<std::uint32_t>(magnitude * 0x1p24F);
  } else {
    rest = ((bits & 0x7FFFFFFFU) >> 13) - (112U << 10);
  }
  return static_cast<std::uint16_t>(sign | rest);
}

[[nodiscard]] inline std::uint16_t bf16_from_double(double x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(round_to_bf16(round_to_odd(x)));
  // A NaN keeps its quiet bit, so that its mantissa doesn't vanish with the lower half.
  return static_cast<std::uint16_t>((bits >> 16) | (std::isnan(x) ? 0x40U : 0U));
}

[[nodiscard]] inline std::uint8_t f8e4m3_from_double(double x) {
  const std::uint32_t sign = std::signbit(x) ? 0x80U : 0U;
  if (std::isnan(x)) return static_cast<std::uint8_t>(sign | 0x7FU);
  const float magnitude = std::fabs(round_to_f8e4m3(round_to_odd(x)));
  const std::uint32_t rest = magnitude < 0x1p-6F
                                 ? static_cast<std::uint32_t>(magnitude * 0x1p9F)
                                 : (std::bit_cast<std::uint32_t>(magnitude) >> 20) - (120U << 3);
  return static_cast<std::uint8_t>(sign | rest);
}

}  // namespace attune::oracle
