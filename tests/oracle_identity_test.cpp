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

Problem base() {
  Problem p;
  p.b = 2;
  p.hq = 4;
  p.hkv = 2;
  p.sq = 6;
  p.sk = 9;
  p.d = 5;
  p.dv = 3;
  p.lse = LseLayout::plain;
  return p;
}

oracle::Result compute(const OracleCase& c) {
  Expected<oracle::Result> result = oracle::run(c.problem, c.arguments());
  EXPECT_TRUE(result.ok()) << print(c.problem) << ": " << result.status().message();
  return result ? *std::move(result) : oracle::Result{};
}

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

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// Row-major position in a dense [B, S, H, D] tensor.
std::size_t dense(std::int64_t s, std::int64_t h, std::int64_t d, std::int64_t b_, std::int64_t s_,
                  std::int64_t h_, std::int64_t d_) {
  return at(((b_ * s + s_) * h + h_) * d + d_);
}

TEST(OracleIdentity, RowsOfPSumToOne) {
  Problem p = base();
  p.softcap = 2;
  p.alibi = PerHead::batch_head;
  p.mask.left = 3;
  p.bias.kind = BiasKind::additive;
  OracleCase c(p, 1);
  std::fill(c.v.begin(), c.v.end(), 1.0);
  for (const double o : compute(c).o) EXPECT_NEAR(o, 1.0, kTiny);
}

TEST(OracleIdentity, ASinkTakesItsShare) {
  Problem p = base();
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
  Problem p = base();
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
  Problem p = base();
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
    Problem p = base();
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
  Problem p = base();
  p.kind = Kind::backward;
  p.lse_grad = true;
  p.sq = 5;
  p.sk = 2;
  p.mask.causal = true;  // bottom right: the first three queries see nothing
  for (const bool sink : {false, true}) {
    p.sink = p.sink_grad = sink;
    OracleCase c(p, 7);
    const oracle::Result r = compute(c);
    double want_sink = 0;
    for (std::int64_t b = 0; b < p.b; ++b) {
      for (std::int64_t h = 0; h < p.hq; ++h) {
        for (std::int64_t i = 0; i < 3; ++i) {
          const std::size_t row = at((b * p.hq + h) * p.sq + i);
          EXPECT_EQ(r.lse[row], sink ? c.sink[at(h)] : -kInfinity);
          if (h == 1) want_sink += c.grad_lse[row];
          for (std::int64_t x = 0; x < p.dv; ++x) {
            EXPECT_EQ(r.o[dense(p.sq, p.hq, p.dv, b, i, h, x)], 0.0);
          }
          for (std::int64_t x = 0; x < p.d; ++x) {
            EXPECT_EQ(r.grad_q[dense(p.sq, p.hq, p.d, b, i, h, x)], 0.0);
          }
        }
      }
    }
    if (!sink) continue;
    // A sink alone is its row's LSE, so that dLSE passes straight through.
    OracleCase alone = c;
    alone.problem.mask.offset = -100;
    double all = 0;
    for (std::int64_t b = 0; b < p.b; ++b) {
      for (std::int64_t i = 0; i < p.sq; ++i) all += c.grad_lse[at((b * p.hq + 1) * p.sq + i)];
    }
    EXPECT_NEAR(compute(alone).grad_sink[1], all, kTiny);
    EXPECT_NE(all, want_sink);
  }
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
                Problem p = base();
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
    Problem p = base();
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
  Problem p = base();
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
  Problem p = base();
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
  Problem p = base();
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

// Packed and paged are other ways of storing the same sequences.
TEST(OracleIdentity, PackedEqualsEachSequenceAlone) {
  Problem p = base();
  p.kind = Kind::backward;
  p.lse_grad = true;
  p.mask.causal = true;
  p.alibi = PerHead::head;
  p.packed_q = p.packed_k = true;
  p.total_q = 11;
  p.total_k = 16;
  OracleCase c(p, 15);
  c.cu_seqlens_q = {0, 6, 9};
  c.cu_seqlens_k = {0, 5, 14};
  const oracle::Result packed = compute(c);
  for (std::size_t b = 0; b < 2; ++b) {
    OracleCase one = c;
    Problem& s = one.problem;
    const std::int64_t q0 = c.cu_seqlens_q[b], q1 = c.cu_seqlens_q[b + 1];
    const std::int64_t k0 = c.cu_seqlens_k[b], k1 = c.cu_seqlens_k[b + 1];
    s.b = 1;
    s.packed_q = s.packed_k = false;
    s.sq = q1 - q0;
    s.sk = k1 - k0;
    const auto rows = [](const std::vector<double>& x, std::int64_t first, std::int64_t last,
                         std::int64_t width) {
      return std::vector<double>(x.begin() + first * width, x.begin() + last * width);
    };
    one.q = rows(c.q, q0, q1, p.hq * p.d);
    one.k = rows(c.k, k0, k1, p.hkv * p.d);
    one.v = rows(c.v, k0, k1, p.hkv * p.dv);
    one.grad_o = rows(c.grad_o, q0, q1, p.hq * p.dv);
    std::vector<double> lse;
    one.grad_lse.clear();
    for (std::int64_t h = 0; h < p.hq; ++h) {
      for (std::int64_t i = q0; i < q1; ++i) {
        one.grad_lse.push_back(c.grad_lse[at(h * p.total_q + i)]);
        lse.push_back(packed.lse[at(h * p.total_q + i)]);
      }
    }
    const oracle::Result r = compute(one);
    EXPECT_EQ(r.o, rows(packed.o, q0, q1, p.hq * p.dv));
    EXPECT_EQ(r.lse, lse);
    EXPECT_EQ(r.grad_q, rows(packed.grad_q, q0, q1, p.hq * p.d));
    EXPECT_EQ(r.grad_k, rows(packed.grad_k, k0, k1, p.hkv * p.d));
    EXPECT_EQ(r.grad_v, rows(packed.grad_v, k0, k1, p.hkv * p.dv));
  }
  // Tokens of no sequence.
  for (std::int64_t i = 9; i < p.total_q; ++i) {
    EXPECT_EQ(packed.o[at(i * p.hq * p.dv)], 0.0);
    EXPECT_EQ(packed.grad_q[at(i * p.hq * p.d)], 0.0);
    EXPECT_EQ(packed.lse[at(i)], -kInfinity);
  }
}

TEST(OracleIdentity, PagedEqualsDense) {
  Problem p = base();
  p.kind = Kind::backward;
  OracleCase c(p, 16);
  const oracle::Result want = compute(c);
  OracleCase paged = c;
  paged.problem.page_size = 4;  // 3 pages a sequence, the last with one key of 9
  paged.problem.pages = 7;
  paged.page_table = {5, 0, 3, 1, 6, 2};
  paged.k.assign(at(7 * 4 * p.hkv * p.d), kNaN);
  paged.v.assign(at(7 * 4 * p.hkv * p.dv), kNaN);
  const auto slot = [&](std::int64_t b, std::int64_t j) {
    return paged.page_table[at(b * 3 + j / 4)] * 4 + j % 4;
  };
  const auto each_key = [&](auto body) {
    for (std::int64_t b = 0; b < p.b; ++b) {
      for (std::int64_t j = 0; j < p.sk; ++j) body(b * p.sk + j, slot(b, j));
    }
  };
  const std::int64_t wk = p.hkv * p.d, wv = p.hkv * p.dv;
  each_key([&](std::int64_t from, std::int64_t to) {
    std::copy_n(c.k.begin() + from * wk, wk, paged.k.begin() + to * wk);
    std::copy_n(c.v.begin() + from * wv, wv, paged.v.begin() + to * wv);
  });
  const oracle::Result got = compute(paged);
  EXPECT_EQ(got.o, want.o);
  EXPECT_EQ(got.grad_q, want.grad_q);
  double total = 0;
  for (const double x : got.grad_k) total += std::fabs(x);
  each_key([&](std::int64_t from, std::int64_t to) {
    for (std::int64_t x = 0; x < wk; ++x) {
      EXPECT_EQ(got.grad_k[at(to * wk + x)], want.grad_k[at(from * wk + x)]);
      total -= std::fabs(got.grad_k[at(to * wk + x)]);
    }
    for (std::int64_t x = 0; x < wv; ++x) {
      EXPECT_EQ(got.grad_v[at(to * wv + x)], want.grad_v[at(from * wv + x)]);
    }
  });
  EXPECT_NEAR(total, 0.0, 1e-10);  // all other slots are zero
}

TEST(OracleIdentity, PaddedLse) {
  Problem p = base();
  p.sq = 33;
  const OracleCase plain(p, 17);
  OracleCase padded = plain;
  padded.problem.lse = LseLayout::padded32;
  const std::vector<double> want = compute(plain).lse;
  const std::vector<double> got = compute(padded).lse;
  ASSERT_EQ(got.size(), at(p.b * p.hq * 64));
  for (std::int64_t row = 0; row < p.b * p.hq; ++row) {
    for (std::int64_t i = 0; i < 64; ++i) {
      EXPECT_EQ(got[at(row * 64 + i)], i < 33 ? want[at(row * 33 + i)] : kInfinity);
    }
  }
}

TEST(OracleIdentity, DropoutDrawsWhatDropoutKeepSays) {
  Problem p = base();
  p.dropout = 0.5;
  p.dv = p.sk;
  p.hkv = p.hq;
  OracleCase c(p, 18);
  std::fill(c.v.begin(), c.v.end(), 0.0);
  for (std::int64_t b = 0; b < p.b; ++b) {
    for (std::int64_t j = 0; j < p.sk; ++j) {
      for (std::int64_t h = 0; h < p.hq; ++h) c.v[dense(p.sk, p.hq, p.dv, b, j, h, j)] = 1.0;
    }
  }
  OracleCase whole = c;
  whole.problem.dropout = 0;
  const oracle::Result with = compute(c);
  const oracle::Result without = compute(whole);
  EXPECT_EQ(with.lse, without.lse);
  for (std::int64_t b = 0; b < p.b; ++b) {
    for (std::int64_t h = 0; h < p.hq; ++h) {
      for (std::int64_t i = 0; i < p.sq; ++i) {
        for (std::int64_t j = 0; j < p.sk; ++j) {
          const auto index = static_cast<std::uint64_t>(((b * p.hq + h) * p.sq + i) * p.sk + j);
          const bool keep =
              oracle::dropout_keep(c.dropout_seed, c.dropout_offset, index, p.dropout);
          const std::size_t n = dense(p.sq, p.hq, p.dv, b, i, h, j);
          EXPECT_NEAR(with.o[n], keep ? 2 * without.o[n] : 0.0, kTiny);
        }
      }
    }
  }
}

TEST(OracleIdentity, EmptySizes) {
  const auto with = [](auto set) {
    Problem p = base();
    p.kind = Kind::backward;
    p.scale = 1.0;
    set(p);
    return compute(OracleCase(p, 19));
  };
  EXPECT_TRUE(with([](Problem& p) { p.b = 0; }).o.empty());
  EXPECT_TRUE(with([](Problem& p) { p.sq = 0; }).o.empty());
  EXPECT_TRUE(with([](Problem& p) { p.dv = 0; }).o.empty());
  const oracle::Result no_keys = with([](Problem& p) { p.sk = 0; });
  for (const double x : no_keys.o) EXPECT_EQ(x, 0.0);
  for (const double x : no_keys.lse) EXPECT_EQ(x, -kInfinity);
  for (const double x : no_keys.grad_q) EXPECT_EQ(x, 0.0);
  const oracle::Result no_width = with([](Problem& p) { p.d = 0; });
  for (const double x : no_width.lse) EXPECT_NEAR(x, std::log(9.0), kTiny);
  const oracle::Result no_values = with([](Problem& p) { p.dv = 0; });
  for (const double x : no_values.grad_k) EXPECT_EQ(x, 0.0);
}

TEST(OracleRun, RefusesWhatItCannotRead) {
  const OracleCase c(base(), 20);
  Arguments a = c.arguments();
  a.v = {};
  Expected<oracle::Result> result = oracle::run(c.problem, a);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().message(), "v is missing; the Problem asks for it");
  a = c.arguments();
  a.k.shape[1] = 8;
  result = oracle::run(c.problem, a);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().message(), "k has shape [2, 8, 2, 5], want [2, 9, 2, 5]");
  EXPECT_EQ(oracle::run(c.problem, c.arguments(), oracle::Rounding::plain).status().code(),
            Code::unsupported);
}

}  // namespace
}  // namespace attune::testing
