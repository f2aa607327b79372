// Casts between the floating-point dtypes, against a reference that works on doubles.
#include "io/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace attune {
namespace {

template <typename T>
Tensor tensor_of(DType dtype, const std::vector<T>& numbers) {
  Tensor tensor{"t", dtype, {static_cast<std::int64_t>(numbers.size())}, {}};
  tensor.data.resize(numbers.size() * sizeof(T));
  std::memcpy(tensor.data.data(), numbers.data(), numbers.size() * sizeof(T));
  return tensor;
}

template <typename T>
std::vector<T> values(const Tensor& tensor) {
  std::vector<T> result(tensor.data.size() / sizeof(T));
  std::memcpy(result.data(), tensor.data.data(), tensor.data.size());
  return result;
}

template <typename To, typename From>
std::vector<To> casted(DType from, DType to, const std::vector<From>& numbers) {
  const auto result = cast(tensor_of(from, numbers), to);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? values<To>(*result) : std::vector<To>{};
}

std::vector<std::uint16_t> all_patterns() {
  std::vector<std::uint16_t> patterns(65536);
  for (std::size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<std::uint16_t>(i);
  return patterns;
}

// What a 16-bit format means, by arithmetic instead of bits.
struct Half {
  DType dtype;
  int mantissa;
  int max_exponent;  // of the greatest finite numbers, unbiased

  [[nodiscard]] int min_exponent() const { return 1 - max_exponent; }
  [[nodiscard]] int exponent_mask() const { return 2 * max_exponent + 1; }

  [[nodiscard]] double decode(std::uint16_t bits) const {
    const int field = (bits >> mantissa) & exponent_mask();
    const int fraction = bits & ((1 << mantissa) - 1);
    const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
    if (field == exponent_mask()) {
      return fraction != 0 ? std::numeric_limits<double>::quiet_NaN()
                           : sign * std::numeric_limits<double>::infinity();
    }
    const double significand = fraction + (field != 0 ? std::ldexp(1.0, mantissa) : 0.0);
    const int exponent = field != 0 ? field - max_exponent : min_exponent();
    return sign * std::ldexp(significand, exponent - mantissa);
  }

  // The nearest value of the format, as a double: nearbyint rounds ties to even.
  [[nodiscard]] double nearest(double x) const {
    if (!std::isfinite(x) || x == 0) return x;
    const int ulp = std::max(std::ilogb(x), min_exponent()) - mantissa;
    const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -ulp)), ulp);
    const double limit = std::ldexp(1.0, max_exponent + 1);
    return std::abs(rounded) >= limit ? std::copysign(std::numeric_limits<double>::infinity(), x)
                                      : rounded;
  }
};
constexpr Half kF16{DType::f16, 10, 15};
constexpr Half kBF16{DType::bf16, 7, 127};

void expect_same(double got, double wanted, double source) {
  if (std::isnan(wanted)) {
    EXPECT_TRUE(std::isnan(got)) << source;
    return;
  }
  EXPECT_EQ(got, wanted) << source;
  EXPECT_EQ(std::signbit(got), std::signbit(wanted)) << source;
}

// Values and bits around every one of the format's: its own, the ties between neighbours, and the
// nearest floats on both sides of each.
std::vector<float> hard_floats(const Half& half) {
  std::vector<float> result;
  const float infinity = std::numeric_limits<float>::infinity();
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const double x = half.decode(static_cast<std::uint16_t>(bits));
    if (!std::isfinite(x)) continue;
    double next = half.decode(static_cast<std::uint16_t>(bits + 1));
    if (!std::isfinite(next)) next = std::copysign(std::ldexp(1.0, half.max_exponent + 1), x);
    const double middle = (x + next) / 2;  // may be past the greatest float, as bf16's is
    for (const double y : {x, middle}) {
      const auto f = static_cast<float>(y);
      for (const float z : {f, std::nextafter(f, infinity), std::nextafter(f, -infinity)}) {
        result.push_back(z);
      }
    }
  }
  return result;
}

class CastTo : public testing::TestWithParam<Half> {};

TEST_P(CastTo, EveryPatternWidensExactlyAndComesBack) {
  const Half& half = GetParam();
  const auto patterns = all_patterns();
  const auto floats = casted<float>(half.dtype, DType::f32, patterns);
  const auto doubles = casted<double>(half.dtype, DType::f64, patterns);
  ASSERT_EQ(floats.size(), patterns.size());
  ASSERT_EQ(doubles.size(), patterns.size());
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    const double wanted = half.decode(patterns[i]);
    expect_same(static_cast<double>(floats[i]), wanted, wanted);
    expect_same(doubles[i], wanted, wanted);
  }
  // Also NaN payloads and signs.
  const auto via = cast(tensor_of(half.dtype, patterns), DType::f32);
  ASSERT_TRUE(via.ok());
  const auto back = cast(*via, half.dtype);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(values<std::uint16_t>(*back), patterns);
  const auto via64 = cast(tensor_of(half.dtype, patterns), DType::f64);
  ASSERT_TRUE(via64.ok());
  const auto back64 = cast(*via64, half.dtype);
  ASSERT_TRUE(back64.ok());
  EXPECT_EQ(values<std::uint16_t>(*back64), patterns);
}

TEST_P(CastTo, RoundsFloatsToNearestEven) {
  const Half& half = GetParam();
  const auto floats = hard_floats(half);
  const auto halves = casted<std::uint16_t>(DType::f32, half.dtype, floats);
  ASSERT_EQ(halves.size(), floats.size());
  for (std::size_t i = 0; i < floats.size(); ++i) {
    const auto source = static_cast<double>(floats[i]);
    expect_same(half.decode(halves[i]), half.nearest(source), source);
  }
}

TEST_P(CastTo, RoundsRandomBitPatterns) {
  const Half& half = GetParam();
  std::mt19937_64 random(7);
  std::vector<double> doubles(100'000);
  std::vector<float> floats(100'000);
  for (auto& x : doubles) x = std::bit_cast<double>(random());
  for (auto& x : floats) x = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
  // Few doubles fall into the range of f16: bring every other one there.
  for (std::size_t i = 0; i < doubles.size(); i += 2) {
    if (std::isfinite(doubles[i]) && doubles[i] != 0) {
      doubles[i] = std::ldexp(doubles[i], -std::ilogb(doubles[i]) - 30 + static_cast<int>(i % 50));
    }
  }
  const auto from_doubles = casted<std::uint16_t>(DType::f64, half.dtype, doubles);
  const auto from_floats = casted<std::uint16_t>(DType::f32, half.dtype, floats);
  ASSERT_EQ(from_doubles.size(), doubles.size());
  ASSERT_EQ(from_floats.size(), floats.size());
  for (std::size_t i = 0; i < doubles.size(); ++i) {
    expect_same(half.decode(from_doubles[i]), half.nearest(doubles[i]), doubles[i]);
    const auto source = static_cast<double>(floats[i]);
    expect_same(half.decode(from_floats[i]), half.nearest(source), source);
  }
}

// One rounding, not two: this double rounds down to the tie in float, and up without that detour.
TEST_P(CastTo, DoublesAreRoundedOnce) {
  const Half& half = GetParam();
  const double x = 1.0 + std::ldexp(1.0, -half.mantissa - 1) + std::ldexp(1.0, -40);
  const auto bits = casted<std::uint16_t>(DType::f64, half.dtype, std::vector<double>{x});
  ASSERT_EQ(bits.size(), 1U);
  EXPECT_EQ(half.decode(bits[0]), 1.0 + std::ldexp(1.0, -half.mantissa));
}

INSTANTIATE_TEST_SUITE_P(Halves, CastTo, testing::Values(kF16, kBF16), [](const auto& half) {
  return half.param.dtype == DType::f16 ? "f16" : "bf16";
});

TEST(Cast, BetweenTheHalves) {
  // Not every bf16 is an f16: 1 + 2^-7 is both, 2^20 overflows, 2^-30 vanishes.
  const auto f16 = casted<std::uint16_t>(DType::bf16, DType::f16,
                                         std::vector<std::uint16_t>{0x3F81, 0x4980, 0xB080});
  ASSERT_EQ(f16.size(), 3U);
  EXPECT_EQ(f16[0], 0x3C08);
  EXPECT_EQ(f16[1], 0x7C00);
  EXPECT_EQ(f16[2], 0x8000);
  for (const auto pattern : all_patterns()) {
    const double x = kF16.decode(pattern);
    const auto bf16 =
        casted<std::uint16_t>(DType::f16, DType::bf16, std::vector<std::uint16_t>{pattern});
    ASSERT_EQ(bf16.size(), 1U);
    expect_same(kBF16.decode(bf16[0]), kBF16.nearest(x), x);
  }
}

TEST(Cast, DoublesToFloatsAsTheProcessorDoes) {
  std::mt19937_64 random(11);
  std::vector<double> doubles;
  for (int i = 0; i < 100'000; ++i) {
    doubles.push_back(std::bit_cast<double>(random()));
    // Exponents that floats have, subnormal ones among them.
    doubles.push_back(std::ldexp(1.0 + static_cast<double>(random() >> 11U) * 0x1p-53,
                                 static_cast<int>(random() % 290) - 155));
  }
  const auto floats = casted<float>(DType::f64, DType::f32, doubles);
  ASSERT_EQ(floats.size(), doubles.size());
  for (std::size_t i = 0; i < doubles.size(); ++i) {
    expect_same(static_cast<double>(floats[i]), static_cast<double>(static_cast<float>(doubles[i])),
                doubles[i]);
  }
}

TEST(Cast, ANaNStaysANaN) {
  // A payload in the low bits only, which no half has.
  const auto halves = casted<std::uint16_t>(DType::f32, DType::f16,
                                            std::vector<float>{std::bit_cast<float>(0xFFC00001U)});
  const Tensor low = tensor_of(DType::f32, std::vector<std::uint32_t>{0x7F800001U, 0xFF800001U});
  for (const Half& half : {kF16, kBF16}) {
    const auto result = cast(low, half.dtype);
    ASSERT_TRUE(result.ok());
    const auto bits = values<std::uint16_t>(*result);
    EXPECT_TRUE(std::isnan(half.decode(bits[0])));
    EXPECT_TRUE(std::isnan(half.decode(bits[1])));
    EXPECT_EQ(bits[0] & 0x8000U, 0U);
    EXPECT_EQ(bits[1] & 0x8000U, 0x8000U);
  }
  ASSERT_EQ(halves.size(), 1U);
  EXPECT_TRUE(std::isnan(kF16.decode(halves[0])));
}

TEST(Cast, KeepsNameAndShape) {
  Tensor tensor = tensor_of(DType::f32, std::vector<float>{1, 2, 3, 4, 5, 6});
  tensor.shape = {2, 3};
  const auto result = cast(tensor, DType::bf16);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->name, "t");
  EXPECT_EQ(result->shape, tensor.shape);
  EXPECT_EQ(result->dtype, DType::bf16);
  const auto empty = cast(Tensor{"e", DType::f32, {0, 3}, {}}, DType::f16);
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty->data.empty());
}

TEST(Cast, OnlyBetweenFloats) {
  const Tensor numbers = tensor_of(DType::i32, std::vector<std::int32_t>{1, 2});
  EXPECT_TRUE(cast(numbers, DType::i32).ok());
  const auto refused = cast(numbers, DType::f32);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::unsupported);
  EXPECT_NE(refused.status().message().find("from i32 to f32"), std::string::npos);
  EXPECT_FALSE(cast(tensor_of(DType::f32, std::vector<float>{1}), DType::boolean).ok());
  Tensor broken = tensor_of(DType::f32, std::vector<float>{1});
  broken.shape = {2};
  EXPECT_EQ(cast(broken, DType::f16).status().code(), Code::invalid_argument);
}

}  // namespace
}  // namespace attune
