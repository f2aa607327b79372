// Every gradient of the oracle against central differences of its own forward pass, in float64:
// L = sum of o * grad_o + sum of lse * grad_lse.
#include <gtest/gtest.h>

#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "tests/oracle_case.h"

namespace attune::testing {
namespace {

constexpr double kStep = 1e-5;
constexpr double kTolerance = 2e-7;

double loss(const OracleCase& c) {
  Problem forward = c.problem;
  forward.kind = Kind::forward;
  const Expected<oracle::Result> result = oracle::run(forward, c.arguments());
  if (!result) return std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for (std::size_t n = 0; n < result->o.size(); ++n) sum += result->o[n] * c.grad_o[n];
  if (!c.problem.lse_grad) return sum;
  for (std::size_t n = 0; n < result->lse.size(); ++n) {
    // Rows with nothing to attend to, and padding, are infinite and constant.
    if (std::isfinite(result->lse[n])) sum += result->lse[n] * c.grad_lse[n];
  }
  return sum;
}

// Each element of `input` in turn, moved by the step both ways. Returns how many moved the loss.
std::size_t check_gradient(const char* name, OracleCase& c, std::vector<double>& input,
                           const std::vector<double>& gradient) {
  EXPECT_EQ(input.size(), gradient.size()) << name;
  if (input.size() != gradient.size()) return 0;
  std::size_t moved = 0;
  for (std::size_t n = 0; n < input.size(); ++n) {
    const double value = input[n];
    input[n] = value + kStep;
    const double above = loss(c);
    input[n] = value - kStep;
    const double below = loss(c);
    input[n] = value;
    const double slope = (above - below) / (2 * kStep);
    EXPECT_NEAR(gradient[n], slope, kTolerance * (1 + std::fabs(slope))) << name << "[" << n << "]";
    moved += above != below ? 1 : 0;
  }
  return moved;
}

void check_all(OracleCase& c) {
  SCOPED_TRACE(print(c.problem));
  const Expected<oracle::Result> result = oracle::run(c.problem, c.arguments());
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_GT(check_gradient("q", c, c.q, result->grad_q), 0U);
  EXPECT_GT(check_gradient("k", c, c.k, result->grad_k), 0U);
  EXPECT_GT(check_gradient("v", c, c.v, result->grad_v), 0U);
  if (c.problem.bias.grad) {
    EXPECT_GT(check_gradient("bias", c, c.bias, result->grad_bias), 0U);
  }
  if (c.problem.sink_grad) {
    EXPECT_GT(check_gradient("sink", c, c.sink, result->grad_sink), 0U);
  }
  if (c.problem.alibi_grad) {
    EXPECT_GT(check_gradient("slopes", c, c.alibi_slopes, result->grad_alibi_slopes), 0U);
  }
}

// 2 sequences of 4 queries and 5 keys; 4 query heads on 2 KV heads; Dv differs from D.
Problem base() {
  Problem p;
  p.kind = Kind::backward;
  p.b = 2;
  p.hq = 4;
  p.hkv = 2;
  p.sq = 4;
  p.sk = 5;
  p.d = 3;
  p.dv = 2;
  p.lse = LseLayout::plain;
  return p;
}

Bias additive(unsigned broadcast = 0) {
  Bias bias;
  bias.kind = BiasKind::additive;
  bias.broadcast_b = (broadcast & 1U) != 0;
  bias.broadcast_h = (broadcast & 2U) != 0;
  bias.broadcast_q = (broadcast & 4U) != 0;
  bias.broadcast_k = (broadcast & 8U) != 0;
  bias.grad = true;
  return bias;
}

struct Feature {
  const char* name;
  std::function<void(Problem&)> set;
};

void pack_q(Problem& p) {
  p.packed_q = true;
  p.total_q = p.b * p.sq + 1;
}
void pack_k(Problem& p) {
  p.packed_k = true;
  p.total_k = p.b * p.sk + 1;
}
void page(Problem& p, std::int64_t size) {
  p.page_size = size;
  p.pages = 4;
}

const std::vector<Feature> kFeatures = {
    {"Base", [](Problem&) {}},
    {"Scale", [](Problem& p) { p.scale = -0.7; }},
    {"Softcap", [](Problem& p) { p.softcap = 0.9; }},
    {"CausalTopLeft",
     [](Problem& p) {
       p.mask.causal = true;
       p.mask.diagonal = Diagonal::top_left;
     }},
    {"CausalBottomRightWithEmptyRows",
     [](Problem& p) {
       p.mask.causal = true;
       p.sq = 6;
       p.sk = 3;
     }},
    {"Window",
     [](Problem& p) {
       p.mask.left = 1;
       p.mask.right = 1;
       p.mask.offset = -1;
     }},
    {"CausalWindow",
     [](Problem& p) {
       p.mask.causal = true;
       p.mask.left = 2;
     }},
    {"Sink",
     [](Problem& p) {
       p.sink = p.sink_grad = true;
       p.mask.causal = true;
       p.mask.offset = -2;
     }},
    {"Slopes",
     [](Problem& p) {
       p.alibi = PerHead::head;
       p.alibi_grad = true;
     }},
    {"SlopesPerBatch",
     [](Problem& p) {
       p.alibi = PerHead::batch_head;
       p.alibi_grad = true;
     }},
    {"Dropout", [](Problem& p) { p.dropout = 0.4; }},
    {"DropoutOfFa2",
     [](Problem& p) {
       p.dropout = 0.4;
       p.dropout_stream = DropoutStream::fa2;
     }},
    {"BooleanBias",
     [](Problem& p) {
       p.bias.kind = BiasKind::boolean;
       p.bias.dtype = DType::boolean;
     }},
    {"KeyLengths", [](Problem& p) { p.key_lengths = true; }},
    {"PackedQ", pack_q},
    {"PackedK", pack_k},
    {"PackedBothKeyLengths",
     [](Problem& p) {
       pack_q(p);
       pack_k(p);
       p.key_lengths = true;
       p.mask.causal = true;
     }},
    {"Paged", [](Problem& p) { page(p, 2); }},
    {"PagedPackedQ",
     [](Problem& p) {
       page(p, 3);
       pack_q(p);
       p.key_lengths = true;
     }},
    {"PaddedLse",
     [](Problem& p) {
       p.lse = LseLayout::padded32;
       p.b = 1;
     }},
    {"PaddedLsePacked",
     [](Problem& p) {
       p.lse = LseLayout::padded32;
       pack_q(p);
     }},
    {"OneKvHead", [](Problem& p) { p.hkv = 1; }},
    {"Everything",
     [](Problem& p) {
       p.softcap = 1.5;
       p.mask.causal = true;
       p.mask.left = 3;
       p.mask.offset = 1;
       p.bias = additive();
       p.alibi = PerHead::batch_head;
       p.alibi_grad = true;
       p.sink = p.sink_grad = true;
       p.dropout = 0.3;
       p.key_lengths = true;
       pack_q(p);
       pack_k(p);
     }},
};

class OracleGradient : public ::testing::TestWithParam<std::size_t> {};

TEST_P(OracleGradient, MatchesCentralDifferences) {
  Problem p = base();
  kFeatures[GetParam()].set(p);
  p.lse_grad = true;
  OracleCase c(p, 100 + GetParam());
  check_all(c);
}

INSTANTIATE_TEST_SUITE_P(Feature, OracleGradient,
                         ::testing::Range(std::size_t{0}, kFeatures.size()),
                         [](const auto& test) { return kFeatures[test.param].name; });

TEST(OracleGradientBias, EveryBroadcastShape) {
  for (unsigned broadcast = 0; broadcast < 16; ++broadcast) {
    Problem p = base();
    p.hq = 2;
    p.bias = additive(broadcast);
    p.lse_grad = true;  // else a bias alike for all keys has no effect
    OracleCase c(p, 200 + broadcast);
    check_all(c);
  }
}

TEST(OracleGradientBias, MinusInfinityHasNoGradient) {
  Problem p = base();
  p.bias = additive();
  OracleCase c(p, 300);
  for (std::size_t n = 0; n < c.bias.size(); n += 3) {
    c.bias[n] = -std::numeric_limits<double>::infinity();
  }
  check_all(c);
}

// A bias that stretches over sequences of different lengths, whose longest lengths it has.
TEST(OracleGradientBias, Packed) {
  for (const unsigned broadcast : {0U, 1U, 12U}) {
    Problem p = base();
    pack_q(p);
    pack_k(p);
    p.bias = additive(broadcast);
    p.lse_grad = true;  // else a bias alike for all keys has no effect
    OracleCase c(p, 400 + broadcast);
    check_all(c);
  }
}

// Two or three features at once, at random.
TEST(OracleGradientRandom, Combinations) {
  Random random(7);
  for (int n = 0; n < 25; ++n) {
    Problem p = base();
    for (int m = 0; m < 3; ++m) random.pick(kFeatures).set(p);
    if (p.packed_k && p.page_size > 0) continue;
    if (p.packed_q) p.total_q = p.b * p.sq + 1;  // a later feature may have changed b, sq, sk
    if (p.packed_k) p.total_k = p.b * p.sk + 1;
    p.lse_grad = random.chance(0.5);
    OracleCase c(p, static_cast<std::uint64_t>(n));
    SCOPED_TRACE(print(p));
    const Expected<oracle::Result> result = oracle::run(p, c.arguments());
    ASSERT_TRUE(result.ok()) << result.status().message();
    check_gradient("q", c, c.q, result->grad_q);
    check_gradient("k", c, c.k, result->grad_k);
    check_gradient("v", c, c.v, result->grad_v);
    if (p.bias.grad) check_gradient("bias", c, c.bias, result->grad_bias);
    if (p.sink_grad) check_gradient("sink", c, c.sink, result->grad_sink);
    if (p.alibi_grad) check_gradient("slopes", c, c.alibi_slopes, result->grad_alibi_slopes);
  }
}

}  // namespace
}  // namespace attune::testing
