// Rows whose blocks of threads go by twos and fetch keys together: for neighbouring tiles of a head, or heads of a group.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <attune/problem.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/gpu/judge_rows.h"
#include "tests/support/device_under_test.h"
#include "tests/support/flags.h"
#include "tests/support/random.h"

namespace attune::testing {
namespace {

const std::vector<KernelSpec>& rows() {
  static const std::vector<KernelSpec> found =
      hopper_rows([](const kernel::HopperSpec& row) { return row.mates; });
  return found;
}

class Mates : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!no_gpu().empty()) GTEST_SKIP() << no_gpu();
    if (rows().empty()) GTEST_SKIP() << "no row here fetches keys for two";
  }
  void TearDown() override {
    if (IsSkipped()) return;
    EXPECT_GT(judged_, 0);
  }

  // Two tiles a head; what is emulated has three multiprocessors.
  [[nodiscard]] static Problem base(std::int64_t heads = 2) {
    Problem p;
    p.kind = Kind::forward;
    p.device = Device::cuda;
    p.dtype = GetParam();
    p.b = 1;
    p.hq = p.hkv = heads;
    p.sq = 200;
    p.sk = 300;
    p.d = p.dv = 64;
    return p;
  }

  std::string judge(const Problem& problem, Tensors& tensors) {
    return judge_rows(rows(), problem, tensors, print(problem), &judged_);
  }
  std::string judge(const Problem& problem, Distribution how = Distribution::normal) {
    Tensors tensors(problem, how, 1);
    return judge(problem, tensors);
  }

 private:
  int judged_ = 0;
};

TEST_P(Mates, TilesOfAHead) {
  Problem p = base();
  for (const std::int64_t d : {96, 128, 192, 256}) {
    p.d = p.dv = d;
    for (const std::int64_t keys : {1, 64, 129, 400}) {
      p.sk = keys;
      EXPECT_EQ(judge(p), "");
    }
  }
  p.dv = 128;
  p.d = 192;
  EXPECT_EQ(judge(p), "");
  for (const std::int64_t queries : {129, 256, 500}) {
    p.sq = queries;
    EXPECT_EQ(judge(p), "");
  }
}

TEST_P(Mates, HeadsOfAGroup) {
  Problem p = base();
  for (const std::int64_t heads : {2, 6}) {
    p.hq = p.hkv * heads;
    p.mask = {};
    p.sq = 200;
    EXPECT_EQ(judge(p), "");
    p.mask.causal = true;
    for (const std::int64_t d : {64, 128, 256}) {
      p.d = p.dv = d;
      for (const std::int64_t queries : {1, 300}) {
        p.sq = queries;
        EXPECT_EQ(judge(p), "");
      }
    }
    p.d = p.dv = 64;
    p.mask.diagonal = Diagonal::top_left;
    EXPECT_EQ(judge(p), "");
    p.mask.left = 40;  // queries that attend to nothing, and blocks that nobody attends to
    p.sq = 500;
    EXPECT_EQ(judge(p), "");
  }
}

// Each block of threads of a GPU takes several, too.
TEST_P(Mates, ManyTiles) {
  for (const bool by_heads : {false, true}) {
    Problem p = base();
    p.b = 2;
    p.hq = 70;
    p.hkv = by_heads ? 35 : 70;
    p.sk = 150;
    p.mask.causal = by_heads;
    for (const std::int64_t d : {128, 256}) {
      p.d = p.dv = d;
      EXPECT_EQ(judge(p), "");
    }
    p = base();
    p.b = 3;
    p.hkv = by_heads ? 1 : 2;
    EXPECT_EQ(judge(p), "");
  }
}

TEST_P(Mates, Features) {
  Problem p = base();
  p.lse = LseLayout::padded32;
  p.sink = true;
  EXPECT_EQ(judge(p), "");
  p.hq *= 2;
  EXPECT_EQ(judge(p, Distribution::outliers), "");
  p.lse = LseLayout::plain;
  EXPECT_EQ(judge(p), "");
}

// Scores that outgrow their reference in one of two tiles, or in both: both walk their tiles again.
TEST_P(Mates, TilesThatAreWalkedAgain) {
  Problem p = base();
  p.sk = 600;
  for (const std::int64_t from : {0, 128}) {
    Tensors tensors(p, Distribution::normal, 1);
    tensors.edit("q", [&](const Index& i) { return i[1] >= from ? 1.0 : 0.125; });
    tensors.edit("k", [](const Index& i) { return static_cast<double>(599 - i[1]) / 128 * 9.5; });
    EXPECT_EQ(judge(p, tensors), "") << from;
  }
}

TEST_P(Mates, ValuesThatAreNotFinite) {
  const Problem p = base();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double odd : {infinity, std::numeric_limits<double>::quiet_NaN()}) {
    Tensors tensors(p, Distribution::normal, 1);
    Random random(3);
    tensors.edit("v", [&](const Index& i) {
      return i[1] == 250 && i[2] == 1 && i[3] % 5 == 1 ? odd : random.normal();
    });
    EXPECT_EQ(judge(p, tensors), "") << odd;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Mates, ::testing::Values(DType::f16, DType::bf16),
                         [](const auto& test) { return std::string(to_string(test.param)); });

}  // namespace
}  // namespace attune::testing
