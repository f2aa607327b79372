// What must hold for attention whatever the numbers: identities that the oracle is judged by.
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/oracle_case.h"

namespace attune::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTiny = 1e-12;

void expect_near(const std::vector<double>& a, const std::vector<double>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (std::size_t n = 0; n < a.size(); ++n) {
    if (std::isinf(b[n])) {
      EXPECT_EQ(a[n], b[n]) << what << "[" << n << "]";
    } else {
      EXPECT_NEAR(a[n], b[n], kTiny) << what << "[" << n << "]";
    }
  }
}

TEST(OracleIdentity, RowsOfPSumToOne) {
  Problem p = small_problem();
  p.softcap = 2;
  p.alibi = PerHead::batch_head;
  p.mask.left = 3;
  p.bias.kind = BiasKind::additive;
  OracleCase c(p, 1);
  std::fill(c.v.begin(), c.v.end(), 1.0);
  for (const double o : compute(c).o) EXPECT_NEAR(o, 1.0, kTiny);
}

TEST(OracleIdentity, ASinkTakesItsShare) {
  Problem p = small_problem();
  OracleCase without(p, 2);
  std::fill(without.v.begin(), without.v.end(), 1.0);
  const oracle::Result plain = compute(without);
  OracleCase with = without;
  with.problem.sink = true;
  with.sink = {0.3, -2.0, 5.0, -kInfinity};
  const oracle::Result sunk = compute(with);
  for (std::int64_t b = 0; b < p.b; ++b) {
    for (std::int64_t h = 0; h < p.hq; ++h) {
      for (std::int64_t i = 0; i < p.sq; ++i) {
        const std::size_t row = at((b * p.hq + h) * p.sq + i);
        const double lse = std::log(std::exp(plain.lse[row]) + std::exp(with.sink[at(h)]));
        EXPECT_NEAR(sunk.lse[row], lse, kTiny);
        const double o = sunk.o[dense(p.sq, p.hq, p.dv, b, i, h, 0)];
        EXPECT_NEAR(o, std::exp(plain.lse[row] - lse), kTiny);
      }
    }
  }
}

// LSE holds what "natural log of the denominator" says, with nothing subtracted.
TEST(OracleIdentity, LseByHand) {
  Problem p = small_problem();
  p.b = p.hq = p.hkv = p.sq = p.d = p.dv = 1;
  p.sk = 3;
  p.scale = 2.0;
  OracleCase c(p, 3);
  c.q = {0.5};
  c.k = {1.0, -3.0, 700.0};
  c.v = {1.0, 2.0, 4.0};
  EXPECT_NEAR(compute(c).lse[0], 700.0, 1e-10);  // exp(700) would still fit, exp(1400) not
  c.k = {1.0, -3.0, 2.0};
  const double sum = std::exp(1.0) + std::exp(-3.0) + std::exp(2.0);
  const oracle::Result result = compute(c);
  EXPECT_NEAR(result.lse[0], std::log(sum), kTiny);
  EXPECT_NEAR(result.o[0], (std::exp(1.0) + 2 * std::exp(-3.0) + 4 * std::exp(2.0)) / sum, kTiny);
}

TEST(OracleIdentity, PermutingKeysChangesNothing) {
  Problem p = small_problem();
  p.kind = Kind::backward;
  p.lse_grad = true;
  p.softcap = 3;
  p.bias.kind = BiasKind::additive;
  p.bias.grad = true;
  p.sink = p.sink_grad = true;
  OracleCase c(p, 4);
  const oracle::Result want = compute(c);
  std::vector<std::int64_t> order(at(p.sk));
  std::iota(order.begin(), order.end(), 0);
  Random(5).shuffle(order);
  // `values` is any number of [Sk, width] blocks one after another.
  const auto permute = [&](const std::vector<double>& values, std::int64_t width) {
    std::vector<double> out(values.size());
    const std::int64_t block = p.sk * width;
    for (std::size_t n = 0; n < values.size(); ++n) {
      const auto index = static_cast<std::int64_t>(n);
      const std::int64_t j = index % block / width;
      out[n] = values[at(index / block * block + order[at(j)] * width + index % width)];
    }
    return out;
  };
  c.k = permute(c.k, p.hkv * p.d);
  c.v = permute(c.v, p.hkv * p.dv);
  c.bias = permute(c.bias, 1);
  const oracle::Result got = compute(c);
  expect_near(got.o, want.o, "o");
  expect_near(got.lse, want.lse, "lse");
  expect_near(got.grad_q, want.grad_q, "grad_q");
  expect_near(got.grad_sink, want.grad_sink, "grad_sink");
  expect_near(got.grad_k, permute(want.grad_k, p.hkv * p.d), "grad_k");
  expect_near(got.grad_v, permute(want.grad_v, p.hkv * p.dv), "grad_v");
  expect_near(got.grad_bias, permute(want.grad_bias, 1), "grad_bias");
}

// The first `split` keys and the others on their own; merged by their LSE they are the whole.
TEST(OracleIdentity, SplittingKeysAndMergingByLse) {
  for (const bool sink : {false, true}) {
    Problem p = small_problem();
    p.b = 1;
    p.sink = sink;
    OracleCase whole(p, 6);
    const oracle::Result want = compute(whole);
    constexpr std::int64_t kSplit = 4;
    const auto part = [&](std::int64_t first, std::int64_t last, bool with_sink) {
      OracleCase c = whole;
      c.problem.sk = last - first;
      c.problem.sink = with_sink;
      c.k = {whole.k.begin() + first * p.hkv * p.d, whole.k.begin() + last * p.hkv * p.d};
      c.v = {whole.v.begin() + first * p.hkv * p.dv, whole.v.begin() + last * p.hkv * p.dv};
      return compute(c);
    };
    const oracle::Result a = part(0, kSplit, sink);
    const oracle::Result b = part(kSplit, p.sk, false);
    for (std::int64_t h = 0; h < p.hq; ++h) {
      for (std::int64_t i = 0; i < p.sq; ++i) {
        const std::size_t row = at(h * p.sq + i);
        const double lse = std::log(std::exp(a.lse[row]) + std::exp(b.lse[row]));
        EXPECT_NEAR(lse, want.lse[row], kTiny);
        for (std::int64_t x = 0; x < p.dv; ++x) {
          const std::size_t n = dense(p.sq, p.hq, p.dv, 0, i, h, x);
          EXPECT_NEAR(a.o[n] * std::exp(a.lse[row] - lse) + b.o[n] * std::exp(b.lse[row] - lse),
                      want.o[n], kTiny);
        }
      }
    }
  }
}

TEST(OracleIdentity, FullyMaskedRows) {
  Problem p = small_problem();
  p.kind = Kind::backward;
  p.lse_grad = true;
  p.sq = 5;
  p.sk = 2;
  p.mask.causal = true;  // bottom right: the first three queries see nothing
  for (const bool sink : {false, true}) {
    p.sink = sink;
    const OracleCase c(p, 7);
    const oracle::Result r = compute(c);
    for (std::int64_t b = 0; b < p.b; ++b) {
      for (std::int64_t h = 0; h < p.hq; ++h) {
        for (std::int64_t i = 0; i < 3; ++i) {
          EXPECT_EQ(r.lse[at((b * p.hq + h) * p.sq + i)], sink ? c.sink[at(h)] : -kInfinity);
          for (std::int64_t x = 0; x < p.dv; ++x) {
            EXPECT_EQ(r.o[dense(p.sq, p.hq, p.dv, b, i, h, x)], 0.0);
          }
          for (std::int64_t x = 0; x < p.d; ++x) {
            EXPECT_EQ(r.grad_q[dense(p.sq, p.hq, p.d, b, i, h, x)], 0.0);
          }
        }
      }
    }
  }
}

// A sink without keys is its row's LSE, so that dLSE passes straight through.
TEST(OracleIdentity, ASinkAlone) {
  Problem p = small_problem();
  p.kind = Kind::backward;
  p.lse_grad = p.sink = p.sink_grad = true;
  p.mask.causal = true;
  p.mask.offset = -100;
  const OracleCase c(p, 21);
  const oracle::Result r = compute(c);
  for (std::int64_t h = 0; h < p.hq; ++h) {
    double sum = 0;
    for (std::int64_t b = 0; b < p.b; ++b) {
      for (std::int64_t i = 0; i < p.sq; ++i) sum += c.grad_lse[at((b * p.hq + h) * p.sq + i)];
    }
    EXPECT_NEAR(r.grad_sink[at(h)], sum, kTiny);
  }
  for (const double x : r.grad_v) EXPECT_EQ(x, 0.0);
}

// Values are unit vectors, so that o is P: equal shares of the keys that the contract names.
TEST(OracleIdentity, MasksByBruteForce) {
  int checked = 0;
  for (const std::int64_t sq : {3, 6}) {
    for (const std::int64_t sk : {2, 6}) {
      for (const Diagonal diagonal : {Diagonal::top_left, Diagonal::bottom_right}) {
        for (const bool causal : {false, true}) {
          for (const std::int64_t left : {-1, 0, 2}) {
            for (const std::int64_t right : {-1, 0, 1}) {
              for (const std::int64_t offset : {-2, 0, 1}) {
                Problem p = small_problem();
                p.b = p.hq = p.hkv = 1;
                p.sq = sq;
                p.sk = sk;
                p.d = 1;
                p.dv = sk;
                p.scale = 0.0;
                p.mask = {causal, diagonal, offset, left, right};
                OracleCase c(p, 8);
                std::fill(c.v.begin(), c.v.end(), 0.0);
                for (std::int64_t j = 0; j < sk; ++j) c.v[at(j * sk + j)] = 1.0;  // o = P
                const oracle::Result r = compute(c);
                for (std::int64_t i = 0; i < sq; ++i) {
                  const std::int64_t ci =
                      i + offset + (diagonal == Diagonal::bottom_right ? sk - sq : 0);
                  std::vector<bool> seen(at(sk));
                  for (std::int64_t j = 0; j < sk; ++j) {
                    seen[at(j)] = (!causal || j <= ci) && (left < 0 || j >= ci - left) &&
                                  (right < 0 || j <= ci + right);
                  }
                  const auto count = std::count(seen.begin(), seen.end(), true);
                  for (std::int64_t j = 0; j < sk; ++j) {
                    const double want = seen[at(j)] ? 1.0 / static_cast<double>(count) : 0.0;
                    ASSERT_NEAR(r.o[at(i * sk + j)], want, kTiny)
                        << print(p) << " i " << i << " j " << j;
                    ++checked;
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  EXPECT_GT(checked, 1000);
}

TEST(OracleIdentity, MaskBoundsBeyond64Bits) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  const auto with = [](const Mask& mask) {
    Problem p = small_problem();
    p.mask = mask;
    return compute(OracleCase(p, 9)).o;
  };
  constexpr Diagonal kTop = Diagonal::top_left;
  // The diagonal lies further right than 64 bits reach: all keys are left of it.
  EXPECT_EQ(with({true, Diagonal::bottom_right, kMost, -1, 3}), with({}));
  EXPECT_EQ(with({false, Diagonal::bottom_right, kMost, -1, kMost}), with({}));
  // The widest window reaches back exactly as far.
  EXPECT_EQ(with({false, kTop, kMost, kMost, kMost}), with({false, kTop, 0, 0, -1}));
  EXPECT_EQ(with({false, kTop, kLeast, kMost, kMost}), with({true, kTop, -1, -1, -1}));
  EXPECT_NE(with({true, kTop, -1, -1, -1}), with({}));
}

TEST(OracleIdentity, BottomRightIsTopLeftWhenSquare) {
  Problem p = small_problem();
  p.sk = p.sq;
  p.mask.causal = true;
  OracleCase c(p, 10);
  const oracle::Result bottom = compute(c);
  c.problem.mask.diagonal = Diagonal::top_left;
  EXPECT_EQ(compute(c).o, bottom.o);
}

// NaN and infinities wherever nobody may look, in three kinds of masking.
TEST(OracleIdentity, NothingMaskedReachesAnyResult) {
  const auto expect_finite = [](const oracle::Result& r) {
    for (const auto* values : {&r.o, &r.grad_q, &r.grad_k, &r.grad_v, &r.grad_bias}) {
      for (const double x : *values) EXPECT_TRUE(std::isfinite(x));
    }
  };
  Problem p = small_problem();
  p.kind = Kind::backward;
  p.mask.causal = true;
  p.mask.offset = -4;  // no query sees a key past sk - 4
  {
    OracleCase c(p, 11);
    for (std::int64_t b = 0; b < p.b; ++b) {
      for (std::int64_t j = p.sk - 4; j < p.sk; ++j) {
        for (std::int64_t h = 0; h < p.hkv; ++h) {
          c.k[dense(p.sk, p.hkv, p.d, b, j, h, 1)] = kNaN;
          c.v[dense(p.sk, p.hkv, p.dv, b, j, h, 2)] = kInfinity;
        }
      }
    }
    const oracle::Result r = compute(c);
    expect_finite(r);
    for (std::int64_t j = p.sk - 4; j < p.sk; ++j) {
      EXPECT_EQ(r.grad_k[dense(p.sk, p.hkv, p.d, 0, j, 0, 0)], 0.0);
      EXPECT_EQ(r.grad_v[dense(p.sk, p.hkv, p.dv, 0, j, 0, 0)], 0.0);
    }
  }
  p.mask = {};
  p.bias.kind = BiasKind::additive;
  p.bias.broadcast_q = p.bias.broadcast_h = p.bias.broadcast_b = true;
  p.bias.grad = true;
  {
    OracleCase c(p, 12);
    c.bias[3] = -kInfinity;
    for (std::int64_t h = 0; h < p.hkv; ++h) {
      c.k[dense(p.sk, p.hkv, p.d, 1, 3, h, 0)] = kInfinity;
      c.v[dense(p.sk, p.hkv, p.dv, 1, 3, h, 0)] = kNaN;
    }
    const oracle::Result r = compute(c);
    expect_finite(r);
    EXPECT_EQ(r.grad_bias[3], 0.0);
  }
  p.bias = {};
  p.key_lengths = true;
  {
    OracleCase c(p, 13);
    c.key_lengths = {7, 0};
    for (std::int64_t j = 7; j < p.sk; ++j) c.k[dense(p.sk, p.hkv, p.d, 0, j, 1, 0)] = kNaN;
    for (std::int64_t j = 0; j < p.sk; ++j) c.v[dense(p.sk, p.hkv, p.dv, 1, j, 1, 0)] = kNaN;
    expect_finite(compute(c));
  }
}

TEST(OracleIdentity, NaNInAnAttendedKeyStaysInItsRows) {
  Problem p = small_problem();
  p.b = p.hq = p.hkv = 1;
  p.sq = p.sk = 4;
  p.mask.causal = true;
  OracleCase c(p, 14);
  c.k[at(2 * p.d)] = kNaN;
  const oracle::Result r = compute(c);
  for (std::int64_t i = 0; i < p.sq; ++i) {
    EXPECT_EQ(std::isnan(r.o[at(i * p.dv)]), i >= 2) << i;
    EXPECT_EQ(std::isnan(r.lse[at(i)]), i >= 2) << i;
  }
}

}  // namespace
}  // namespace attune::testing
