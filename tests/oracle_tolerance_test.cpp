// The tolerance rule, the rounding behind it, and the plain computation that sets its measure.
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "oracle/read.h"
#include "oracle/rounding.h"
#include "tests/support/tensors.h"

namespace attune::oracle {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Error compare_floats(std::vector<float> got, const std::vector<double>& exact,
                     const std::vector<double>& plain = {}) {
  const auto count = static_cast<std::int64_t>(got.size());
  return compare(TensorView::contiguous(got.data(), DType::f32, {count}), exact, plain);
}

Error compare_halves(const std::vector<double>& got, const std::vector<double>& exact,
                     const std::vector<double>& plain = {}) {
  std::vector<std::uint16_t> bits;
  for (const double x : got) bits.push_back(f16_from_double(x));
  const auto count = static_cast<std::int64_t>(got.size());
  return compare(TensorView::contiguous(bits.data(), DType::f16, {count}), exact, plain);
}

TEST(OracleRounding, EveryFloat16AndBfloat16SurvivesTheWay) {
  for (std::uint32_t n = 0; n <= 0xFFFF; ++n) {
    const auto bits = static_cast<std::uint16_t>(n);
    const float half = float_from_f16(bits);
    const float brain = float_from_bf16(bits);
    if (std::isnan(half)) {
      EXPECT_TRUE(std::isnan(float_from_f16(f16_from_double(static_cast<double>(half)))));
    } else {
      ASSERT_EQ(f16_from_double(static_cast<double>(half)), bits);
      ASSERT_EQ(round_to_f16(half), half);
    }
    if (std::isnan(brain)) {
      EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_double(static_cast<double>(brain)))));
    } else {
      ASSERT_EQ(bf16_from_double(static_cast<double>(brain)), bits);
      ASSERT_EQ(round_to_bf16(brain), brain);
    }
  }
}

// Between two neighbours: below the middle goes down, above goes up, the middle to the even one.
// "Below" and "above" by one part in 2^40, which a detour over float32 would lose.
TEST(OracleRounding, TiesGoToEvenAndDoublesRoundOnce) {
  const auto check = [](DType dtype, auto decode, std::uint16_t largest) {
    for (std::uint16_t bits = 0; bits < largest; bits = static_cast<std::uint16_t>(bits + 1)) {
      const auto low = static_cast<double>(decode(bits));
      const auto high = static_cast<double>(decode(static_cast<std::uint16_t>(bits + 1)));
      const double middle = low + (high - low) / 2;
      const double even = bits % 2 == 0 ? low : high;
      ASSERT_EQ(round_to(dtype, middle), even);
      ASSERT_EQ(round_to(dtype, middle * (1 - 0x1p-40)), low);
      ASSERT_EQ(round_to(dtype, middle * (1 + 0x1p-40)), high);
      ASSERT_EQ(round_to(dtype, -middle), -even);
    }
  };
  check(
      DType::f16, [](std::uint16_t bits) { return float_from_f16(bits); }, 0x7BFF);
  check(
      DType::bf16, [](std::uint16_t bits) { return float_from_bf16(bits); }, 0x7F7F);
  EXPECT_EQ(round_to(DType::f16, 65519.999), 65504.0);
  EXPECT_EQ(round_to(DType::f16, -65520.0), -kInfinity);
  EXPECT_EQ(round_to(DType::bf16, 3.4e38), kInfinity);
  EXPECT_EQ(round_to(DType::f32, 1e39), kInfinity);
  EXPECT_EQ(round_to(DType::f16, 1e-300), 0.0);
  EXPECT_TRUE(std::signbit(round_to(DType::f16, -1e-300)));
  EXPECT_TRUE(std::isnan(round_to(DType::f16, kNaN)));
  EXPECT_EQ(bf16_from_double(-kInfinity), 0xFF80);
}

TEST(OracleCompare, PassesTheExactResult) {
  const Error error = compare_floats({1, 2, -3}, {1, 2, -3});
  EXPECT_TRUE(error.pass());
  EXPECT_EQ(error.max, 0);
  EXPECT_EQ(error.floor, 3 * 0x1p-23);
  EXPECT_TRUE(error.first_bad.empty());
}

TEST(OracleCompare, PassesAnEmptyTensor) {
  EXPECT_TRUE(compare(TensorView::contiguous(nullptr, DType::f16, {2, 0, 4}), {}, {}).pass());
}

TEST(OracleCompare, NamesTheWorstElement) {
  float got[2][3] = {{1, 2, 3}, {4, 5.5F, 6.25F}};
  const Error error =
      compare(TensorView::contiguous(got, DType::f32, {2, 3}), {1, 2, 3, 4, 5, 6}, {});
  EXPECT_FALSE(error.pass());
  EXPECT_EQ(error.first_bad, "[1, 1]: got 5.5, want 5");
  EXPECT_EQ(error.max, 0.5);
  EXPECT_NEAR(error.rms, std::sqrt((0.25 + 0.0625) / 6), 1e-15);
}

TEST(OracleCompare, ReadsThroughStrides) {
  const float memory[] = {4, 9, 3, 9, 2, 9, 1};
  TensorView view = TensorView::contiguous(memory + 6, DType::f32, {4});
  view.strides[0] = -2;
  EXPECT_EQ(compare(view, {1, 2, 3, 4}, {}).max, 0);
}

TEST(OracleCompare, AllowsTwiceThePlainMaxAndOneAndAHalfItsRms) {
  const std::vector<double> exact = {1, 1};
  const std::vector<double> plain = {1.01, 0.99};
  EXPECT_TRUE(compare_floats({1.0149F, 0.9851F}, exact, plain).pass());
  // The maximum is fine, the RMS is not.
  const Error rms = compare_floats({1.0199F, 0.9801F}, exact, plain);
  EXPECT_LT(rms.max_ratio, 1);
  EXPECT_GT(rms.rms_ratio, 1);
  EXPECT_FALSE(rms.pass());
  // The other way round.
  const Error max = compare_floats({1.0201F, 1.0F}, exact, plain);
  EXPECT_GT(max.max_ratio, 1);
  EXPECT_LT(max.rms_ratio, 1);
  EXPECT_FALSE(max.pass());
}

TEST(OracleCompare, NothingButZeroMatchesZeros) {
  EXPECT_TRUE(compare_floats({0, -0.0F}, {0, 0}).pass());
  EXPECT_FALSE(compare_floats({0, 1e-30F}, {0, 0}).pass());
}

TEST(OracleCompare, WantsTheSameInfinitiesAndNaNs) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(compare_floats({1, kInf, -kInf, kNan}, {1, kInfinity, -kInfinity, kNaN}).pass());
  EXPECT_FALSE(compare_floats({1, -kInf}, {1, kInfinity}).pass());
  EXPECT_FALSE(compare_floats({1, 3e38F}, {1, kInfinity}).pass());
  EXPECT_FALSE(compare_floats({1, kInf}, {1, kNaN}).pass());
  EXPECT_FALSE(compare_floats({1, kNan}, {1, kInfinity}).pass());
  EXPECT_FALSE(compare_floats({1, 0}, {1, kNaN}).pass());
  const Error error = compare_floats({1, kNan, 5}, {1, 2, 3});
  EXPECT_FALSE(error.pass());
  EXPECT_EQ(error.first_bad, "[1]: got nan, want 2");
}

TEST(OracleCompare, AValuePastTheDTypeIsItsInfinity) {
  EXPECT_TRUE(compare_halves({kInfinity, 1}, {70000, 1}).pass());
  EXPECT_FALSE(compare_halves({-kInfinity, 1}, {70000, 1}).pass());
  EXPECT_FALSE(compare_halves({kInfinity, 1}, {60000, 1}).pass());
  // 65510 rounds down to 65504, but a result within the tolerance may be 65520.
  EXPECT_TRUE(compare_halves({kInfinity, 65504}, {65510, 65504}, {65504, 65500}).pass());
  // What overflows doesn't lend its size to the floor.
  EXPECT_EQ(compare_halves({kInfinity, 1}, {1e9, 1}).floor, 0x1p-10);
}

TEST(OracleCompare, IgnoresThePlainErrorWherePlainOverflowed) {
  const Error error = compare_floats({1, 1}, {1, 1}, {kNaN, 1.5});
  EXPECT_EQ(error.plain_max, 0.5);
  EXPECT_EQ(error.plain_rms, 0.5);
}

TEST(OracleCompare, RefusesAnotherShape) {
  const Error error = compare_floats({1, 2}, {1, 2, 3});
  EXPECT_FALSE(error.pass());
  EXPECT_NE(error.first_bad.find("has 2 elements, the oracle 3"), std::string::npos);
}

// The plain results are values of the dtype, near the exact ones, and not the exact ones.
TEST(OraclePlain, RoundsToItsDType) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    Problem p;
    p.kind = Kind::backward;
    p.dtype = dtype;
    p.b = 2;
    p.hq = 4;
    p.hkv = 2;
    p.sq = 20;
    p.sk = 30;
    p.d = 16;
    p.dv = 8;
    p.lse = LseLayout::plain;
    p.softcap = 5;
    p.bias.kind = BiasKind::additive;
    p.bias.grad = true;
    const testing::Tensors tensors(p, testing::Distribution::normal, 1);
    const Expected<Result> exact = run(p, tensors.arguments());
    const Expected<Result> plain = run(p, tensors.arguments(), Rounding::plain);
    ASSERT_TRUE(exact.ok() && plain.ok());
    const double epsilon = dtype == DType::f32 ? 0x1p-23 : dtype == DType::f16 ? 0x1p-10 : 0x1p-7;
    for (const auto member :
         {&Result::o, &Result::grad_q, &Result::grad_k, &Result::grad_v, &Result::grad_bias}) {
      const std::vector<double>& got = (*plain).*member;
      const std::vector<double>& want = (*exact).*member;
      ASSERT_EQ(got.size(), want.size());
      double largest = 0, worst = 0;
      for (std::size_t n = 0; n < got.size(); ++n) {
        ASSERT_EQ(got[n], round_to(dtype, got[n]));
        largest = std::max(largest, std::fabs(want[n]));
        worst = std::max(worst, std::fabs(got[n] - want[n]));
      }
      EXPECT_GT(worst, 0.05 * epsilon * largest) << to_string(dtype);
      EXPECT_LT(worst, 20 * epsilon * largest) << to_string(dtype);
    }
  }
}

}  // namespace
}  // namespace attune::oracle
