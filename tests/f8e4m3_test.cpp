// float8 E4M3: every code in every place that reads or writes it, attention of it on every kernel, and the
// plain computation that judges it.
#include <gtest/gtest.h>

#include <array>
#include <attune/arguments.hpp>
#include <attune/attention.hpp>
#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "io/convert.h"
#include "oracle/read.h"
#include "tests/support/judge.h"
#include "tests/support/scalar.h"

namespace attune::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Codes = std::vector<std::uint8_t>;

Codes all_codes() {
  Codes codes(256);
  for (std::size_t n = 0; n < codes.size(); ++n) codes[n] = static_cast<std::uint8_t>(n);
  return codes;
}

double decode(std::uint8_t code) { return load_scalar(&code, DType::f8e4m3); }

float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

template <typename T>
Tensor tensor_of(DType dtype, const std::vector<T>& numbers) {
  Tensor tensor{"t", dtype, {static_cast<std::int64_t>(numbers.size())}, {}};
  tensor.data.resize(numbers.size() * sizeof(T));
  std::memcpy(tensor.data.data(), numbers.data(), tensor.data.size());
  return tensor;
}

// By cast(), the oracle and the tests' own conversion.
std::array<std::uint8_t, 3> encode(double x) {
  const Expected<Tensor> tensor =
      cast(tensor_of(DType::f64, std::vector<double>{x}), DType::f8e4m3);
  EXPECT_TRUE(tensor.ok()) << tensor.status().message();
  std::uint8_t own = 0;
  store_scalar(&own, DType::f8e4m3, x);
  return {static_cast<std::uint8_t>(tensor->data.at(0)), oracle::f8e4m3_from_double(x), own};
}

void expect_code(double x, int code) {
  for (const std::uint8_t got : encode(x)) EXPECT_EQ(got, code) << x;
}

TEST(F8E4M3, CodesMeanWhatOcpSays) {
  EXPECT_EQ(to_string(DType::f8e4m3), "f8e4m3");
  EXPECT_EQ(size_of(DType::f8e4m3), 1U);
  EXPECT_EQ(decode(0x00), 0.0);
  EXPECT_TRUE(std::signbit(decode(0x80)));
  EXPECT_EQ(decode(0x01), 0x1p-9);  // the least subnormal
  EXPECT_EQ(decode(0x07), 7 * 0x1p-9);
  EXPECT_EQ(decode(0x08), 0x1p-6);  // the least normal
  EXPECT_EQ(decode(0x38), 1.0);
  EXPECT_EQ(decode(0x78), 256.0);  // where IEEE would have infinity
  EXPECT_EQ(decode(0xFE), -448.0);
  EXPECT_TRUE(std::isnan(decode(0x7F)));
  EXPECT_TRUE(std::isnan(decode(0xFF)));
}

TEST(F8E4M3, EveryCodeWidensExactlyAndComesBack) {
  const Codes codes = all_codes();
  for (const DType wide : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
    const Expected<Tensor> widened = cast(tensor_of(DType::f8e4m3, codes), wide);
    ASSERT_TRUE(widened.ok()) << widened.status().message();
    const Expected<Tensor> back = cast(*widened, DType::f8e4m3);
    ASSERT_TRUE(back.ok()) << back.status().message();
    for (const std::uint8_t code : codes) {
      const double want = decode(code);
      const double got = load_scalar(widened->data.data() + code * size_of(wide), wide);
      ASSERT_EQ(static_cast<std::uint8_t>(back->data[code]), code) << to_string(wide);
      ASSERT_EQ(std::signbit(got), code >= 0x80);
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(got));
      } else {
        ASSERT_EQ(got, want) << int{code};
      }
    }
  }
  for (const std::uint8_t code : codes) {
    const float read = oracle::float_from_f8e4m3(code);
    if (std::isnan(decode(code))) {
      EXPECT_TRUE(std::isnan(read));
      EXPECT_TRUE(std::isnan(oracle::round_to_f8e4m3(read)));
    } else {
      ASSERT_EQ(static_cast<double>(read), decode(code));
      ASSERT_EQ(oracle::round_to_f8e4m3(read), read);
      expect_code(decode(code), code);
    }
  }
}

// "Below" and "above" the tie by one part in 2^40, which a detour over float32 would lose.
TEST(F8E4M3, RoundsToNearestEvenOnce) {
  for (int code = 0; code < 0x7E; ++code) {
    const double low = decode(static_cast<std::uint8_t>(code));
    const double high = decode(static_cast<std::uint8_t>(code + 1));
    const double middle = (low + high) / 2;
    const int even = code % 2 == 0 ? code : code + 1;
    expect_code(middle, even);
    expect_code(-middle, 0x80 | even);
    expect_code(middle * (1 - 0x1p-40), code);
    expect_code(middle * (1 + 0x1p-40), code + 1);
    const auto narrow = static_cast<float>(middle);
    EXPECT_EQ(oracle::round_to_f8e4m3(narrow), decode(static_cast<std::uint8_t>(even)));
  }
}

TEST(F8E4M3, SaturatesAndKeepsNaN) {
  for (const double x : {448.0, 460.0, 464.0, 465.0, 479.9, 480.0, 1e30, 1e300, kInfinity}) {
    expect_code(x, 0x7E);
    expect_code(-x, 0xFE);
  }
  expect_code(std::nan(""), 0x7F);
  expect_code(-std::nan(""), 0xFF);
  expect_code(1e-300, 0x00);
  expect_code(-1e-300, 0x80);
}

Problem one_key(std::int64_t queries, std::int64_t d, std::int64_t dv) {
  Problem p;
  p.device = Device::cpu;
  p.dtype = DType::f8e4m3;
  p.sq = queries;
  p.sk = 1;
  p.d = d;
  p.dv = dv;
  p.scale = 1.0;
  p.lse = LseLayout::plain;
  return p;
}

// With one key o is v, and the LSE is q . k: every code through every kernel's conversions, by vectors where
// neighbours lie side by side and one by one where they don't.
TEST(F8E4M3, EveryCodeThroughEveryKernel) {
  const std::vector<KernelSpec> kernels = available_kernels(Kind::forward, DType::f8e4m3);
  ASSERT_FALSE(kernels.empty());
  for (const KernelSpec& kernel : kernels) {
    for (const std::int64_t step : {1, 2}) {
      Problem p = one_key(256, 1, 256);
      if (step == 2) p.v_strides = {512, 512, 512, 2};
      Codes q = all_codes(), k{0x38}, v(512, 0x7F);
      for (std::size_t n = 0; n < 256; ++n) v[n * static_cast<std::size_t>(step)] = q[n];
      std::vector<std::uint16_t> o(256 * 256);
      std::vector<float> lse(256);
      Arguments a;
      a.q = TensorView::contiguous(q.data(), DType::f8e4m3, {1, 256, 1, 1});
      a.k = TensorView::contiguous(k.data(), DType::f8e4m3, {1, 1, 1, 1});
      a.v = TensorView::contiguous(v.data(), DType::f8e4m3, {1, 1, 1, 256});
      if (step == 2) a.v.strides = {512, 512, 512, 2};
      a.o = TensorView::contiguous(o.data(), DType::bf16, {1, 256, 1, 256});
      a.lse = TensorView::contiguous(lse.data(), DType::f32, {1, 1, 256});
      const Status status = run_kernel(p, kernel, a, 1);
      ASSERT_TRUE(status.ok()) << status.message();
      for (std::size_t n = 0; n < 256; ++n) {
        const double want = decode(static_cast<std::uint8_t>(n));
        if (std::isnan(want)) {
          EXPECT_TRUE(std::isnan(lse[n])) << id_of(kernel) << ": q " << n;
          EXPECT_TRUE(std::isnan(from_bf16(o[n]))) << id_of(kernel) << ": v " << n;
          continue;
        }
        EXPECT_NEAR(static_cast<double>(lse[n]), want, 1e-6 * std::fabs(want)) << id_of(kernel);
        EXPECT_EQ(static_cast<double>(from_bf16(o[n])), want) << id_of(kernel) << ": v " << n;
      }
    }
  }
}

// Keys that are longer than a vector, with a rest: the vector path of q and k.
TEST(F8E4M3, ScoresOfEveryCode) {
  for (const KernelSpec& kernel : available_kernels(Kind::forward, DType::f8e4m3)) {
    Problem p = one_key(1, 254 + 13, 1);
    Codes q, k(267, 0x38), v{0x38};
    double sum = 0;
    for (const std::uint8_t code : all_codes()) {
      if (std::isnan(decode(code))) continue;
      q.push_back(code);
      k[q.size() - 1] = code;  // squares, so that no sign cancels
      sum += decode(code) * decode(code);
    }
    while (q.size() < 267) q.push_back(0x38);
    sum += 13;
    std::uint16_t o = 0;
    float lse = 0;
    Arguments a;
    a.q = TensorView::contiguous(q.data(), DType::f8e4m3, {1, 1, 1, 267});
    a.k = TensorView::contiguous(k.data(), DType::f8e4m3, {1, 1, 1, 267});
    a.v = TensorView::contiguous(v.data(), DType::f8e4m3, {1, 1, 1, 1});
    a.o = TensorView::contiguous(&o, DType::bf16, {1, 1, 1, 1});
    a.lse = TensorView::contiguous(&lse, DType::f32, {1, 1, 1});
    const Status status = run_kernel(p, kernel, a, 1);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_NEAR(static_cast<double>(lse), sum, 1e-6 * sum) << id_of(kernel);
  }
}

TEST(F8E4M3, AttentionTakesScales) {
  const Codes q{0x38}, k{0x38, 0x38}, v{0x38, 0x40};
  std::uint16_t o = 0;
  float lse = 0;
  const std::array<float, 1> q_scale{3.0F}, k_scale{0.25F}, v_scale{8.0F};
  AttentionOptions options;
  options.scale = 2.0;
  options.lse = TensorView::contiguous(&lse, DType::f32, {1, 1, 1});
  options.q_scale = TensorView::contiguous(q_scale.data(), DType::f32, {1, 1});
  options.k_scale = TensorView::contiguous(k_scale.data(), DType::f32, {1, 1});
  options.v_scale = TensorView::contiguous(v_scale.data(), DType::f32, {1, 1});
  const auto run = [&](DType o_dtype) {
    return attention(TensorView::contiguous(q.data(), DType::f8e4m3, {1, 1, 1, 1}),
                     TensorView::contiguous(k.data(), DType::f8e4m3, {1, 2, 1, 1}),
                     TensorView::contiguous(v.data(), DType::f8e4m3, {1, 2, 1, 1}),
                     TensorView::contiguous(&o, o_dtype, {1, 1, 1, 1}), options);
  };
  const Status status = run(DType::bf16);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(from_bf16(o), 12.0F);  // 8 (1 + 2) / 2
  EXPECT_NEAR(lse, 2 * 3 * 0.25 + std::log(2.0), 1e-6);

  EXPECT_NE(run(DType::f8e4m3).message().find("o has dtype f8e4m3, but the problem expects bf16"),
            std::string::npos);
  options.k_scale = {};
  EXPECT_NE(run(DType::bf16).message().find("k_scale is missing"), std::string::npos);
}

TEST(F8E4M3, ExplainSaysHowItIsComputed) {
  const Expected<std::string> text =
      explain(*parse("forward dtype=f8e4m3 sq=40 d=64 descale device=cpu"));
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_NE(text->find("kernel fwd.cpu.f8e4m3."), std::string::npos) << *text;
  EXPECT_NE(text->find("widened to f32"), std::string::npos) << *text;
  EXPECT_NE(text->find("q_scale k_scale"), std::string::npos) << *text;
}

// Two keys, q . k of 1 and 0: the second's P is exp(-1), which 2^8 times is 94.18 and becomes 96. The sum
// stays that of what was not rounded.
TEST(F8E4M3, ThePlainComputationRoundsP) {
  Problem p = one_key(1, 1, 2);
  p.sk = 2;
  p.lse = LseLayout::plain;
  Codes q{0x38}, k{0x38, 0x00}, v{0x38, 0x00, 0x00, 0x38};  // 1, 0; 0, 1
  Arguments a;
  a.q = TensorView::contiguous(q.data(), DType::f8e4m3, {1, 1, 1, 1});
  a.k = TensorView::contiguous(k.data(), DType::f8e4m3, {1, 2, 1, 1});
  a.v = TensorView::contiguous(v.data(), DType::f8e4m3, {1, 2, 1, 2});
  const Expected<oracle::Result> exact = oracle::run(p, a, oracle::Rounding::exact);
  const Expected<oracle::Result> plain = oracle::run(p, a, oracle::Rounding::plain);
  ASSERT_TRUE(exact.ok() && plain.ok());
  const double sum = 1 + std::exp(-1.0);
  EXPECT_NEAR(exact->o[1], std::exp(-1.0) / sum, 1e-12);
  EXPECT_NEAR(plain->lse[0], 1 + std::log(sum), 1e-6);
  // Rounded once more, to bfloat16.
  EXPECT_EQ(plain->o[0], oracle::round_to(DType::bf16, 1 / sum));
  EXPECT_EQ(plain->o[1], oracle::round_to(DType::bf16, 96.0 / 256 / sum));

  // Half a unit in the last place of each P is 4 of 64 to 128; P that is off by a whole one does not pass.
  const auto judged = [&](double second) {
    std::array<std::uint16_t, 2> o{oracle::bf16_from_double(1 / sum),
                                   oracle::bf16_from_double(second / 256 / sum)};
    return oracle::compare(TensorView::contiguous(o.data(), DType::bf16, {1, 1, 1, 2}),
                           &oracle::Result::o, *exact, *plain);
  };
  EXPECT_TRUE(judged(96).pass());
  EXPECT_TRUE(judged(256 * std::exp(-1.0)).pass());
  EXPECT_TRUE(judged(90).pass());
  EXPECT_FALSE(judged(64).pass());
  EXPECT_FALSE(judged(128).pass());
}

// A sink is in the denominator; it does not push the keys' P below E4M3's least number.
TEST(F8E4M3, ThePlainComputationKeepsPBesideALargeSink) {
  Problem p = one_key(1, 1, 1);
  p.sink = true;
  Codes q{0x38}, k{0x38}, v{0x78};
  const float sink = 20;
  Arguments a;
  a.q = TensorView::contiguous(q.data(), DType::f8e4m3, {1, 1, 1, 1});
  a.k = TensorView::contiguous(k.data(), DType::f8e4m3, {1, 1, 1, 1});
  a.v = TensorView::contiguous(v.data(), DType::f8e4m3, {1, 1, 1, 1});
  a.sink = TensorView::contiguous(&sink, DType::f32, {1});
  const Expected<oracle::Result> plain = oracle::run(p, a, oracle::Rounding::plain);
  ASSERT_TRUE(plain.ok());
  const double want = 256 * std::exp(1.0 - 20) / (1 + std::exp(1.0 - 20));
  EXPECT_NEAR(plain->o[0], want, want * 0x1p-8);
}

}  // namespace
}  // namespace attune::testing
