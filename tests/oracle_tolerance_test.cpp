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
#include <utility>
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
    testing::Tensors tensors(p, testing::Distribution::normal, 1);
    const Expected<Result> exact = run(p, tensors.arguments());
    ASSERT_TRUE(exact.ok());
    tensors.set_forward(*exact);
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

// Terms and the floor that comes from them, for o and every gradient of a Problem on normal data.
struct Judged {
  testing::Tensors tensors;
  Result exact, plain;

  explicit Judged(const Problem& p) : tensors(p, testing::Distribution::normal, 1) {
    Expected<Result> result = run(p, tensors.arguments());
    EXPECT_TRUE(result.ok());
    exact = std::move(result).value();
    if (p.kind == Kind::backward) tensors.set_forward(exact);
    result = run(p, tensors.arguments(), Rounding::plain);
    EXPECT_TRUE(result.ok());
    plain = std::move(result).value();
  }

  // Judges the exact values times (1 + error), rounded to `dtype`.
  [[nodiscard]] Error judge(std::vector<double> Result::*tensor, DType dtype, double error) const {
    const std::vector<double>& values = exact.*tensor;
    std::vector<double> memory(values.size());  // room enough for any dtype
    const TensorView got =
        TensorView::contiguous(memory.data(), dtype, {static_cast<std::int64_t>(values.size())});
    std::size_t n = 0;
    for_each_index(got, [&](const Index& i) { write(got, i, values[n++] * (1 + error)); });
    return compare(got, tensor, exact, plain);
  }
};

Problem backward_problem(DType dtype, std::int64_t sq, std::int64_t sk) {
  Problem p;
  p.kind = Kind::backward;
  p.dtype = dtype;
  p.hq = 4;
  p.hkv = 2;
  p.sq = sq;
  p.sk = sk;
  p.d = 64;
  p.dv = 64;
  p.lse = LseLayout::plain;
  return p;
}

// With one key P is 1 and dS = P (dP - delta) cancels to 0, which float32 need not hit.
TEST(OracleTerms, GiveAFloorToGradientsThatCancel) {
  const Judged judged(backward_problem(DType::f32, 5, 1));
  for (const auto member : {&Result::grad_q, &Result::grad_k}) {
    std::vector<float> got((judged.exact.*member).size(), 0);
    const TensorView view =
        TensorView::contiguous(got.data(), DType::f32, {static_cast<std::int64_t>(got.size())});
    Error error = compare(view, member, judged.exact, judged.plain);
    EXPECT_GT(error.floor, 0);
    EXPECT_LT(error.floor, 1e-4);  // dP, delta and q, k are in the order of 10 and 1
    EXPECT_TRUE(error.pass());
    got[3] = 1e-7F;
    EXPECT_TRUE(compare(view, member, judged.exact, judged.plain).pass());
    got[3] = 1e-3F;
    EXPECT_FALSE(compare(view, member, judged.exact, judged.plain).pass());
  }
}

TEST(OracleTerms, LeaveTheToleranceTight) {
  for (const std::int64_t sk : {40, 200}) {
    const Judged judged(backward_problem(DType::f32, 50, sk));
    for (const auto member : {&Result::o, &Result::grad_q, &Result::grad_k, &Result::grad_v}) {
      const Error right = judged.judge(member, DType::f32, 0);
      EXPECT_TRUE(right.pass());
      double largest = 0;
      for (const double x : judged.exact.*member) largest = std::max(largest, std::fabs(x));
      EXPECT_LE(right.floor, 1e-5 * largest);
      EXPECT_LE(2 * right.plain_max + right.floor, 6e-6 * largest);
      EXPECT_LE(1.5 * right.plain_rms + right.rms_floor, 2e-6 * largest);
      EXPECT_FALSE(judged.judge(member, DType::f32, 1e-5).pass());
    }
    EXPECT_FALSE(judged.judge(&Result::lse, DType::f32, 1e-5).pass());
  }
}

// Beside the roundings of the half precisions, those of float32 are nothing.
TEST(OracleTerms, AddNothingInHalfPrecision) {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Judged judged(backward_problem(dtype, 50, 200));
    const double ulp = dtype == DType::f16 ? 0x1p-10 : 0x1p-7;
    for (const auto member : {&Result::o, &Result::grad_q, &Result::grad_k, &Result::grad_v}) {
      double largest = 0;
      for (const double x : judged.exact.*member) largest = std::max(largest, std::fabs(x));
      const Error error = judged.judge(member, dtype, 0);
      EXPECT_TRUE(error.pass());
      EXPECT_EQ(error.floor, ulp * largest);
      EXPECT_EQ(error.rms_floor, ulp * largest);
    }
    EXPECT_FALSE(judged.judge(&Result::o, dtype, dtype == DType::bf16 ? 3e-2 : 4e-3).pass());
  }
}

TEST(OracleTerms, AreThereForEveryTensorAndOfExactRunsOnly) {
  Problem p = backward_problem(DType::f32, 6, 9);
  p.bias.kind = BiasKind::additive;
  p.bias.grad = true;
  p.sink = p.sink_grad = true;
  p.alibi = PerHead::head;
  p.alibi_grad = true;
  p.softcap = 3;
  const Judged judged(p);
  for (const auto member : {&Terms::o, &Terms::lse, &Terms::grad_q, &Terms::grad_k, &Terms::grad_v,
                            &Terms::grad_bias, &Terms::grad_sink, &Terms::grad_alibi_slopes}) {
    const Terms::Sum exact = judged.exact.terms.*member;
    EXPECT_GT(exact.max, 0);
    EXPECT_TRUE(std::isfinite(exact.max));
    EXPECT_GE(exact.squares, exact.max * exact.max * (1 - 1e-12));
    EXPECT_EQ((judged.plain.terms.*member).max, 0);
  }
}

// Where nothing is attended there are no terms, and zeros have to be zeros.
TEST(OracleTerms, AreZeroWithoutKeys) {
  Problem p = backward_problem(DType::f32, 6, 9);
  p.mask.causal = true;
  p.mask.offset = -100;
  const Judged judged(p);
  for (const auto member :
       {&Terms::o, &Terms::lse, &Terms::grad_q, &Terms::grad_k, &Terms::grad_v}) {
    EXPECT_EQ((judged.exact.terms.*member).max, 0);
  }
}

// Scores of 1e15 say nothing in float32, but o stays between the values even then.
TEST(OracleTerms, EndWhereNothingIsRight) {
  Problem p = backward_problem(DType::f32, 6, 9);
  p.kind = Kind::forward;
  p.bias.kind = BiasKind::additive;
  testing::Tensors tensors(p, testing::Distribution::normal, 1);
  tensors.edit("bias", [](const Index&) { return 1e15; });
  tensors.edit("v", [](const Index&) { return 1; });
  const Expected<Result> exact = run(p, tensors.arguments());
  ASSERT_TRUE(exact.ok());
  EXPECT_GT(exact->terms.o.max * 0x1p-23, 0.3);
  EXPECT_LT(exact->terms.o.max * 0x1p-23, 1.1);
}

// What is attended but not finite has no first-order error; the rest keeps its own.
TEST(OracleTerms, StayFiniteBesideInfinities) {
  const Problem p = backward_problem(DType::f32, 6, 9);
  testing::Tensors tensors(p, testing::Distribution::normal, 1);
  tensors.edit("v", [](const Index& i) { return i[1] == 4 && i[3] == 0 ? kInfinity : 0.5; });
  tensors.edit("k", [](const Index& i) { return i[1] == 5 && i[2] == 0 ? kNaN : 0.25; });
  const Expected<Result> exact = run(p, tensors.arguments());
  ASSERT_TRUE(exact.ok());
  for (const auto member :
       {&Terms::o, &Terms::lse, &Terms::grad_q, &Terms::grad_k, &Terms::grad_v}) {
    const Terms::Sum sum = exact->terms.*member;
    EXPECT_TRUE(std::isfinite(sum.max) && std::isfinite(sum.squares));
  }
}

// Plain backward takes delta from the o and, in float32, P from the LSE that a kernel is given.
TEST(OraclePlain, StartsBackwardFromTheSavedTensors) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Problem p = backward_problem(dtype, 7, 9);
    Judged judged(p);
    const auto plain = [&] {
      Expected<Result> result = run(p, judged.tensors.arguments(), Rounding::plain);
      EXPECT_TRUE(result.ok());
      return std::move(result).value();
    };
    const auto scaled = [&](const std::vector<double>& values, double factor) {
      std::vector<double> out = values;
      for (double& x : out) x *= factor;
      return out;
    };
    Result saved = judged.exact;
    // P of a float32 LSE that is log(2) too small is twice as large, and so is dV.
    for (double& x : saved.lse) x -= std::log(2);
    judged.tensors.set_forward(saved);
    const std::vector<double> want = scaled(judged.plain.grad_v, dtype == DType::f32 ? 2 : 1);
    const std::vector<double> got = plain().grad_v;
    for (std::size_t n = 0; n < want.size(); ++n) EXPECT_NEAR(got[n], want[n], 1e-5) << n;
    // -inf: no gradients, whatever the scores.
    for (double& x : saved.lse) x = -kInfinity;
    judged.tensors.set_forward(saved);
    for (const double x : plain().grad_v) EXPECT_EQ(x, 0);
    // Another o is another delta: dQ changes, dV does not.
    saved = judged.exact;
    saved.o = scaled(saved.o, 2);
    judged.tensors.set_forward(saved);
    const Result other = plain();
    EXPECT_EQ(other.grad_v, judged.plain.grad_v);
    EXPECT_NE(other.grad_q, judged.plain.grad_q);
    // The exact gradient reads neither.
    const Expected<Result> exact = run(p, judged.tensors.arguments());
    ASSERT_TRUE(exact.ok());
    EXPECT_EQ(exact->grad_q, judged.exact.grad_q);
  }
}

}  // namespace
}  // namespace attune::oracle
