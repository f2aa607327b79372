// Kernels of f8e4m3 on what their rounding of P, their transposed values and their scales could get wrong. On a GPU
// most features have no row: those Problems are judged on the CPU alone.
#include <gtest/gtest.h>

#include <attune/problem.hpp>
#include <cmath>
#include <cstdint>
#include <string>

#include "tests/support/judge.h"
#include "tests/support/random_problem.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

Problem eighths(std::int64_t sq, std::int64_t sk, std::int64_t d) {
  Problem p;
  p.kind = Kind::forward;
  p.device = Device::cpu;
  p.dtype = DType::f8e4m3;
  p.descale = true;
  p.lse = LseLayout::plain;
  p.b = 1;
  p.hq = p.hkv = 1;
  p.sq = sq;
  p.sk = sk;
  p.d = p.dv = d;
  return p;
}

std::string judged(const Problem& p, Distribution distribution = Distribution::normal,
                   std::uint64_t seed = 1) {
  return skip_reason(p).empty() ? judge_problem(p, distribution, seed) : "";
}

std::string judged(const Problem& p, Tensors& tensors) {
  return skip_reason(p, tensors.arguments()).empty() ? judge_problem(p, tensors) : "";
}

class Eighths : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = skip_reason(Kind::forward, DType::f8e4m3);
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_F(Eighths, GeneratedProblems) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    Problem p = random_problem(seed, Kind::forward);
    p.dtype = DType::f8e4m3;
    p.descale = seed % 3 != 0;
    p = plainer(p, seed);
    const auto distribution = static_cast<Distribution>(seed / 8 % 6);
    EXPECT_EQ(judged(p, distribution, seed), "") << "seed " << seed;
  }
}

TEST_F(Eighths, SizesAroundTiles) {
  for (const std::int64_t d : {16, 48, 64, 80, 128, 144, 256}) {
    for (const std::int64_t sk : {1, 31, 33, 127, 128, 129, 257, 400}) {
      Problem p = eighths(d == 16 ? 200 : 130, sk, d);
      p.hq = 2;
      p.dv = d == 80 ? 32 : d;
      EXPECT_EQ(judged(p), "");
      p.mask.causal = true;
      p.mask.diagonal = sk % 2 == 0 ? Diagonal::top_left : Diagonal::bottom_right;
      EXPECT_EQ(judged(p), "");
    }
  }
}

// Blocks of keys go from the last to the first: each has larger scores than all before, in some rows by much and in
// others by a little, or by none.
TEST_F(Eighths, MaximaThatRise) {
  for (const double step : {0.125, 1.0, 16.0}) {
    Problem p = eighths(130, 900, 64);
    p.scale = 1.0 / 64;
    Tensors tensors(p, Distribution::normal, 2);
    tensors.edit("q",
                 [&](const Index& i) { return i[3] == 0 ? static_cast<double>(i[1] % 9) : 0.5; });
    tensors.edit("k", [&](const Index& i) {
      return i[3] == 0 ? step * static_cast<double>((899 - i[1]) / 64)
                       : std::sin(static_cast<double>(i[1] + i[3]));
    });
    EXPECT_EQ(judged(p, tensors), "") << step;
  }
}

// Beside one key that weighs most: many that together weigh as much, each near the end of E4M3's range.
TEST_F(Eighths, ManySmallWeights) {
  for (const double power : {4.0, 8.0, 12.0, 15.0, 17.0}) {
    Problem p = eighths(70, 4096, 64);
    p.descale = false;
    p.scale = std::log(2.0) / 64;
    Tensors tensors(p, Distribution::normal, 3);
    tensors.edit("q", [&](const Index& i) { return i[3] == 0 ? 64 : 0; });
    tensors.edit("k", [&](const Index& i) { return i[3] == 0 && i[1] == 1000 ? power : 0; });
    EXPECT_EQ(judged(p, tensors), "") << power;
  }
}

TEST_F(Eighths, ScoresOfAMillion) {
  Problem p = eighths(130, 300, 128);
  p.scale = 30;
  EXPECT_EQ(judged(p, Distribution::large), "");
  EXPECT_EQ(judged(p, Distribution::outliers), "");
}

// With one key o is v.
TEST_F(Eighths, EveryCodeOfAValue) {
  Problem p = eighths(3, 1, 256);
  Tensors tensors(p, Distribution::normal, 4);
  tensors.edit("v", [](const Index& i) {
    const int exponent = static_cast<int>(i[3] / 8 % 16), fraction = static_cast<int>(i[3] % 8);
    const double size = exponent == 0                     ? std::ldexp(fraction, -9)
                        : exponent == 15 && fraction == 7 ? std::nan("")
                                                          : std::ldexp(8 + fraction, exponent - 10);
    return i[3] < 128 ? size : -size;
  });
  EXPECT_EQ(judged(p, tensors), "");
}

// What lies behind a sequence's last key, and what no query attends to.
TEST_F(Eighths, WhatIsNotRead) {
  for (const std::int64_t d : {64, 128, 256}) {
    for (const std::int64_t sk : {100, 131, 400}) {
      Problem p = eighths(140, sk, d);
      p.b = 3;
      p.hq = 4;
      p.hkv = 2;
      p.key_lengths = true;
      EXPECT_EQ(judged(p, Distribution::poison), "");
      p.mask.causal = true;
      p.sink = true;
      EXPECT_EQ(judged(p, Distribution::poison), "");
      p.key_lengths = false;
      p.packed_q = p.packed_k = true;
      p.total_q = 300;
      p.total_k = 2 * sk + 20;
      EXPECT_EQ(judged(p, Distribution::poison), "");
      p.packed_q = p.packed_k = false;
      p.total_q = p.total_k = 0;
      p.mask.left = 40;
      EXPECT_EQ(judged(p, Distribution::poison), "");
      p.page_size = 16;
      p.pages = 90;
      EXPECT_EQ(judged(p, Distribution::poison), "");
    }
  }
}

}  // namespace
}  // namespace attune::testing
