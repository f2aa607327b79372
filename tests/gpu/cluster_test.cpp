// Rows whose clusters share a tile's keys, on problems that are worth it: few queries, many keys, heads in groups.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/problem.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/gpu/judge_rows.h"
#include "tests/support/device_under_test.h"
#include "tests/support/flags.h"
#include "tests/support/random.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

const std::vector<KernelSpec>& split_rows() {
  static const std::vector<KernelSpec> rows =
      hopper_rows([](const kernel::HopperSpec& row) { return row.split; });
  return rows;
}

std::string judge(const Problem& problem, Tensors& tensors, const std::string& title, int* judged) {
  return judge_rows(split_rows(), problem, tensors, title, judged);
}

std::string judge(const Problem& problem, Tensors& tensors) {
  int judged = 0;
  const std::string wrong = judge(problem, tensors, print(problem), &judged);
  return wrong.empty() && judged == 0 ? print(problem) + ": no row serves it" : wrong;
}
std::string judge(const Problem& problem, Distribution distribution = Distribution::normal) {
  Tensors tensors(problem, distribution, 1);
  return judge(problem, tensors);
}

class Clusters : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!no_gpu().empty()) GTEST_SKIP() << no_gpu();
    if (split_rows().empty()) GTEST_SKIP() << "no row here shares keys";
  }

  [[nodiscard]] static Problem base() {
    Problem p;
    p.kind = Kind::forward;
    p.device = Device::cuda;
    p.dtype = GetParam();
    p.lse = LseLayout::plain;
    p.b = 1;
    p.hq = 8;
    p.hkv = 2;
    p.sq = 3;
    p.sk = 1000;
    p.d = 64;
    p.dv = 64;
    return p;
  }
};

using Sizes = std::vector<std::int64_t>;

Problem random_small(DType dtype, std::uint64_t seed) {
  Random random(seed);
  Problem p;
  p.kind = Kind::forward;
  p.device = Device::cuda;
  p.dtype = dtype;
  p.b = random.pick(Sizes{1, 1, 2, 3});
  p.hkv = random.pick(Sizes{1, 1, 2, 3});
  p.hq = p.hkv * random.pick(Sizes{1, 1, 2, 3, 4, 6, 8, 12, 64});
  p.sq = random.pick(Sizes{1, 1, 1, 2, 3, 4, 7, 16, 33, 64, 70, 130});
  p.sk = random.pick(Sizes{1, 5, 100, 128, 129, 300, 511, 700, 1024, 1500, 2100});
  p.d = random.pick(Sizes{8, 40, 64, 64, 96, 128, 128, 192, 256});
  p.dv = random.chance(0.7) ? p.d : random.pick(Sizes{8, 64, 72, 128});
  constexpr std::int64_t kMostWork = 12'000'000;
  while (p.b * p.hq * p.sq * p.sk * (p.d + p.dv) > kMostWork) {
    std::int64_t& size = p.sq > 16 ? p.sq : p.hkv > 1 ? p.hkv : p.b > 1 ? p.b : p.sk;
    const std::int64_t group = p.hq / p.hkv;
    size = (size + 1) / 2;
    p.hq = p.hkv * group;
  }
  p.mask.causal = random.chance(0.5);
  if (random.chance(0.3)) p.mask.left = random.pick(Sizes{0, 7, 100, 300, 900});
  if (random.chance(0.2)) p.mask.right = random.pick(Sizes{0, 3, 200});
  if (random.chance(0.3)) p.mask.diagonal = Diagonal::top_left;
  if (random.chance(0.2)) p.mask.offset = random.integer(-400, 400);
  p.sink = random.chance(0.3);
  p.lse = random.pick<LseLayout>({LseLayout::none, LseLayout::plain, LseLayout::padded32});
  p.packed_q = random.chance(0.25);
  if (p.packed_q)
    p.total_q = random.integer((p.b * p.sq + 1) / 2, p.b * p.sq) + random.integer(0, 5);
  if (random.chance(0.25)) {
    p.packed_k = true;
    p.total_k = random.integer((p.b * p.sk + 1) / 2, p.b * p.sk) + random.integer(0, 5);
  } else if (random.chance(0.3)) {
    p.page_size = random.pick(Sizes{16, 32, 64});
    p.pages = p.b * ((p.sk + p.page_size - 1) / p.page_size) + random.integer(0, 3);
  }
  p.key_lengths = random.chance(0.3);
  return p;
}

TEST_P(Clusters, MatchTheOracle) {
  int judged = 0;
  for (std::uint64_t seed = 0; seed < 70; ++seed) {
    const Problem p = random_small(GetParam(), seed);
    Random random(seed);
    const auto distribution = random.pick<Distribution>(
        {Distribution::normal, Distribution::normal, Distribution::outliers, Distribution::equal,
         Distribution::large, Distribution::poison, Distribution::poison});
    Tensors tensors(p, distribution, seed);
    EXPECT_EQ(
        judge(p, tensors, fmt::format("seed {} {}: {}", seed, to_string(distribution), print(p)),
              &judged),
        "");
  }
  EXPECT_GT(judged, 50);
}

// More blocks in a cluster than a tile has blocks of keys.
TEST_P(Clusters, ShareFewKeys) {
  Problem p = base();
  for (const std::int64_t group : {1, 4, 8}) {
    p.hq = 2 * group;
    for (const std::int64_t keys : {1, 64, 65, 129, 260, 400}) {
      p.sk = keys;
      for (const std::int64_t queries : {1, 9, 80}) {
        p.sq = queries;
        EXPECT_EQ(judge(p), "");
      }
    }
  }
}

TEST_P(Clusters, RowsWithNothingToAttendTo) {
  Problem p = base();
  p.sq = 40;
  for (const bool sink : {false, true}) {
    p.sink = sink;
    p.mask = {};
    p.mask.causal = true;
    p.mask.offset = -980;  // rows up to the 17th see nothing
    EXPECT_EQ(judge(p, Distribution::poison), "");
    p.mask.offset = -5000;  // nor do the others
    EXPECT_EQ(judge(p, Distribution::poison), "");
    p.mask = {};
    p.key_lengths = true;
    p.b = 2;
    Tensors tensors(p, Distribution::poison, 1);
    tensors.edit("key_lengths", [](const Index& i) { return i[0] == 0 ? 0 : 777; });
    EXPECT_EQ(judge(p, tensors), "");
    p.key_lengths = false;
    p.b = 1;
  }
}

// Windows that leave a share's keys to some rows of the tile alone, or to none. Scores far below 0 are below what
// stands for the reference of a row that has met no key.
TEST_P(Clusters, SharesThatRowsDoNotMeet) {
  Problem p = base();
  p.sq = 200;
  p.sk = 900;
  p.hq = p.hkv = 1;
  for (const std::int64_t left : {0, 30, 100, 400}) {
    p.mask.left = left;
    p.mask.right = 0;
    for (const Diagonal diagonal : {Diagonal::top_left, Diagonal::bottom_right}) {
      p.mask.diagonal = diagonal;
      EXPECT_EQ(judge(p), "");
      EXPECT_EQ(judge(p, Distribution::poison), "");
      Tensors low(p, Distribution::normal, 1);
      low.edit("q", [](const Index&) { return 1.0; });
      low.edit("k", [&](const Index& i) { return -30.0 - static_cast<double>(i[1] % 3) / 8; });
      EXPECT_EQ(judge(p, low), "");
    }
  }
}

// Blocks of keys come from the last to the first. Scores that rise by 2^110 from each to the next outgrow the
// reference in all shares, or in one alone, which then is walked again.
TEST_P(Clusters, ScoresThatOutgrowTheirReference) {
  Problem p = base();
  p.sk = 2100;
  for (const std::int64_t rises_to : {2100, 900, 300}) {
    Tensors tensors(p, Distribution::normal, 1);
    tensors.edit("q", [](const Index&) { return 1.0; });
    tensors.edit("k", [&](const Index& i) {
      return i[1] < rises_to ? static_cast<double>(rises_to - 1 - i[1]) / 128 * 9.5 : 0.0;
    });
    EXPECT_EQ(judge(p, tensors), "") << rises_to;
  }
}

// What a share holds must not count where another's scores are far above.
TEST_P(Clusters, OneShareHasAllTheWeight) {
  Problem p = base();
  p.sk = 1500;
  for (const std::int64_t heavy : {0, 500, 1000, 1499}) {
    Tensors tensors(p, Distribution::normal, 1);
    tensors.edit("q", [](const Index&) { return 1.0; });
    tensors.edit("k", [&](const Index& i) { return i[1] == heavy ? 0.0 : -200.0 - i[1] % 7; });
    EXPECT_EQ(judge(p, tensors), "") << heavy;
  }
}

// Infinities that rows do attend to: the contract's NaN and infinities, from whatever share.
TEST_P(Clusters, ValuesThatAreNotFinite) {
  Problem p = base();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double odd : {infinity, -infinity, std::numeric_limits<double>::quiet_NaN()}) {
    Tensors tensors(p, Distribution::normal, 1);
    Random random(3);
    tensors.edit(
        "v", [&](const Index& i) { return i[1] == 700 && i[3] % 5 == 1 ? odd : random.normal(); });
    EXPECT_EQ(judge(p, tensors), "") << odd;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Clusters, ::testing::Values(DType::f16, DType::bf16),
                         [](const auto& test) { return std::string(to_string(test.param)); });

}  // namespace
}  // namespace attune::testing
