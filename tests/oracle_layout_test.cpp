// The same sequences stored in other ways - packed, paged, padded - and sizes of zero: the oracle's
// results may not depend on it.
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/oracle_case.h"

namespace attune::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTiny = 1e-12;

// Packed and paged are other ways of storing the same sequences.
TEST(OracleLayout, PackedEqualsEachSequenceAlone) {
  Problem p = small_problem();
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

TEST(OracleLayout, PagedEqualsDense) {
  Problem p = small_problem();
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

TEST(OracleLayout, PaddedLse) {
  Problem p = small_problem();
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

void expect_mask_of_dropout_keep(DropoutStream stream) {
  Problem p = small_problem();
  p.dropout = 0.5;
  p.dropout_stream = stream;
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
  whole.problem.dropout_stream = DropoutStream::curand;
  const oracle::Result with = compute(c);
  const oracle::Result without = compute(whole);
  EXPECT_EQ(with.lse, without.lse);
  for (std::int64_t b = 0; b < p.b; ++b) {
    for (std::int64_t h = 0; h < p.hq; ++h) {
      for (std::int64_t i = 0; i < p.sq; ++i) {
        for (std::int64_t j = 0; j < p.sk; ++j) {
          const bool keep = oracle::dropout_keep(p, c.dropout_seed, c.dropout_offset, b, h, i, j);
          const std::size_t n = dense(p.sq, p.hq, p.dv, b, i, h, j);
          EXPECT_NEAR(with.o[n], keep ? 2 * without.o[n] : 0.0, kTiny);
          if (stream == DropoutStream::fa2) continue;
          const auto index = static_cast<std::uint64_t>(((b * p.hq + h) * p.sq + i) * p.sk + j);
          EXPECT_EQ(keep, oracle::dropout_keep(c.dropout_seed, c.dropout_offset, index, p.dropout));
        }
      }
    }
  }
}

TEST(OracleLayout, DropoutDrawsWhatDropoutKeepSays) {
  expect_mask_of_dropout_keep(DropoutStream::curand);
  expect_mask_of_dropout_keep(DropoutStream::fa2);
}

TEST(OracleLayout, EmptySizes) {
  const auto with = [](auto set) {
    Problem p = small_problem();
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
  const OracleCase c(small_problem(), 20);
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
