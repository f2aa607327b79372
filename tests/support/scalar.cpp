#include "tests/support/scalar.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace attune::testing {
namespace {

template <typename T>
T read(const void* address) {
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

template <typename T>
void write(void* address, T value) {
  std::memcpy(address, &value, sizeof value);
}

double half_to_double(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  double magnitude = 0;
  if (exponent == 31) {
    magnitude = mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                              : std::numeric_limits<double>::infinity();
  } else if (exponent == 0) {
    magnitude = std::ldexp(mantissa, -24);
  } else {
    magnitude = std::ldexp(1024 + mantissa, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

std::uint16_t double_to_half(double value) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7E00);
  const double magnitude = std::fabs(value);
  if (magnitude >= 65520.0) return static_cast<std::uint16_t>(sign | 0x7C00);
  if (magnitude < 0x1p-14) {  // subnormal: a multiple of 2^-24; 1024 of them is the first normal
    const auto units = static_cast<std::uint16_t>(std::nearbyint(magnitude * 0x1p24));
    return static_cast<std::uint16_t>(sign | units);
  }
  int exponent = 0;
  const double fraction = std::frexp(magnitude, &exponent);                // in [0.5, 1)
  const auto units = static_cast<int>(std::nearbyint(fraction * 2048.0));  // 1024 ... 2048
  // A carry of the rounding flows into the exponent field by itself.
  return static_cast<std::uint16_t>(sign | (((exponent + 13) << 10) + units));
}

std::uint16_t double_to_bfloat(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  const std::uint32_t odd = (bits >> 16) & 1;
  return static_cast<std::uint16_t>((bits + 0x7FFF + odd) >> 16);
}

double eighth_to_double(std::uint8_t bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  if (exponent == 15 && mantissa == 7) magnitude = std::numeric_limits<double>::quiet_NaN();
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

std::uint8_t double_to_eighth(double value) {
  const int sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return static_cast<std::uint8_t>(sign | 0x7F);
  const double magnitude = std::fabs(value);
  if (magnitude >= 448.0) return static_cast<std::uint8_t>(sign | 0x7E);
  if (magnitude < 0x1p-6) {  // as in double_to_half()
    return static_cast<std::uint8_t>(sign | static_cast<int>(std::nearbyint(magnitude * 0x1p9)));
  }
  int exponent = 0;
  const double fraction = std::frexp(magnitude, &exponent);
  const auto units = static_cast<int>(std::nearbyint(fraction * 16.0));  // 8 ... 16
  return static_cast<std::uint8_t>(sign | (((exponent + 5) << 3) + units));
}

}  // namespace

double load_scalar(const void* address, DType dtype) {
  switch (dtype) {
    case DType::f32:
      return read<float>(address);
    case DType::f16:
      return half_to_double(read<std::uint16_t>(address));
    case DType::bf16:
      return std::bit_cast<float>(static_cast<std::uint32_t>(read<std::uint16_t>(address)) << 16);
    case DType::f64:
      return read<double>(address);
    case DType::boolean:
      return read<std::uint8_t>(address) != 0 ? 1 : 0;
    case DType::i32:
      return read<std::int32_t>(address);
    case DType::i64:
      return static_cast<double>(read<std::int64_t>(address));
    case DType::u8:
      return read<std::uint8_t>(address);
    case DType::f8e4m3:
      return eighth_to_double(read<std::uint8_t>(address));
  }
  return 0;
}

void store_scalar(void* address, DType dtype, double value) {
  switch (dtype) {
    case DType::f32:
      return write(address, static_cast<float>(value));
    case DType::f16:
      return write(address, double_to_half(value));
    case DType::bf16:
      return write(address, double_to_bfloat(value));
    case DType::f64:
      return write(address, value);
    case DType::boolean:
      return write(address, static_cast<std::uint8_t>(value != 0));
    case DType::i32:
      return write(address, static_cast<std::int32_t>(value));
    case DType::i64:
      return write(address, static_cast<std::int64_t>(value));
    case DType::u8:
      return write(address, static_cast<std::uint8_t>(value));
    case DType::f8e4m3:
      return write(address, double_to_eighth(value));
  }
}

double largest(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return 65504.0;
    case DType::bf16:
      return 0x1.FEp127;
    case DType::f8e4m3:
      return 448.0;
    case DType::f64:
      return std::numeric_limits<double>::max();
    default:
      return std::numeric_limits<float>::max();
  }
}

}  // namespace attune::testing
