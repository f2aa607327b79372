// A Problem with float64 tensors for the tests of the oracle: exact arithmetic, so that finite
// differences and identities hold to about 1e-10. Plain row-major memory, filled from a seed.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <attune/arguments.hpp>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/random_problem.h"

namespace attune::testing {

struct OracleCase {
  Problem problem;
  std::vector<double> q, k, v, bias, alibi_slopes, sink, grad_o, grad_lse;
  std::vector<std::int32_t> key_lengths, cu_seqlens_q, cu_seqlens_k, page_table;
  std::vector<std::uint8_t> keep;  // boolean bias
  std::uint64_t dropout_seed = 0, dropout_offset = 0;

  OracleCase(const Problem& asked, std::uint64_t seed) : problem(asked) {
    problem.dtype = DType::f64;
    Random random(seed);
    const auto fill = [&](std::vector<double>& values, const Shape& shape) {
      std::int64_t count = 1;
      for (const std::int64_t extent : shape) count *= extent;
      values.resize(static_cast<std::size_t>(count));
      for (double& value : values) value = random.normal();
    };
    const auto cut = [&](std::vector<std::int32_t>& cu, std::int64_t longest, std::int64_t total) {
      cu = {0};
      for (std::int64_t b = 0; b < problem.b; ++b) {
        const std::int64_t most = std::min(longest, total - cu.back());
        cu.push_back(cu.back() + static_cast<std::int32_t>(
                                     random.integer(std::min<std::int64_t>(1, most), most)));
      }
    };
    fill(q, shape_of_q(problem));
    fill(k, shape_of_k(problem));
    fill(v, shape_of_v(problem));
    if (problem.packed_q) cut(cu_seqlens_q, problem.sq, problem.total_q);
    if (problem.packed_k) cut(cu_seqlens_k, problem.sk, problem.total_k);
    if (problem.key_lengths) {
      for (std::int64_t b = 0; b < problem.b; ++b) {
        const auto at = static_cast<std::size_t>(b);
        const std::int64_t most =
            problem.packed_k ? cu_seqlens_k[at + 1] - cu_seqlens_k[at] : problem.sk;
        key_lengths.push_back(static_cast<std::int32_t>(random.integer(0, most)));
      }
    }
    if (problem.page_size > 0) {
      // Any page for anyone: sequences share pages, and one may even have a page twice.
      const std::int64_t columns = (problem.sk + problem.page_size - 1) / problem.page_size;
      for (std::int64_t n = 0; n < problem.b * columns; ++n) {
        page_table.push_back(static_cast<std::int32_t>(random.integer(0, problem.pages - 1)));
      }
    }
    if (problem.bias.kind == BiasKind::additive) fill(bias, shape_of_bias(problem));
    if (problem.bias.kind == BiasKind::boolean) {
      fill(bias, shape_of_bias(problem));
      for (const double x : bias) keep.push_back(x > -0.7 ? 1 : 0);
    }
    if (problem.alibi != PerHead::none) fill(alibi_slopes, shape_of_slopes(problem));
    if (problem.sink) fill(sink, {problem.hq});
    fill(grad_o, shape_of_o(problem));
    fill(grad_lse, shape_of_lse(problem));
    dropout_seed = random.next();
    dropout_offset = random.next() % 1000;
  }

  // Views of the vectors as they are now.
  [[nodiscard]] Arguments arguments() const {
    Arguments a;
    const auto view = [](const auto& values, DType dtype, const Shape& shape) {
      TensorView out;
      out.data = const_cast<void*>(static_cast<const void*>(values.data()));
      out.dtype = dtype;
      out.rank = static_cast<int>(shape.size());
      std::copy(shape.begin(), shape.end(), out.shape.begin());
      out.strides = contiguous_strides(out.shape, out.rank);
      return out;
    };
    a.q = view(q, DType::f64, shape_of_q(problem));
    a.k = view(k, DType::f64, shape_of_k(problem));
    a.v = view(v, DType::f64, shape_of_v(problem));
    if (problem.bias.kind == BiasKind::additive) {
      a.bias = view(bias, DType::f64, shape_of_bias(problem));
    }
    if (problem.bias.kind == BiasKind::boolean) {
      a.bias = view(keep, DType::boolean, shape_of_bias(problem));
    }
    if (problem.alibi != PerHead::none) {
      a.alibi_slopes = view(alibi_slopes, DType::f64, shape_of_slopes(problem));
    }
    if (problem.sink) a.sink = view(sink, DType::f64, {problem.hq});
    if (problem.key_lengths) a.key_lengths = view(key_lengths, DType::i32, {problem.b});
    if (problem.packed_q) a.cu_seqlens_q = view(cu_seqlens_q, DType::i32, {problem.b + 1});
    if (problem.packed_k) a.cu_seqlens_k = view(cu_seqlens_k, DType::i32, {problem.b + 1});
    if (problem.page_size > 0) {
      const std::int64_t columns = (problem.sk + problem.page_size - 1) / problem.page_size;
      a.page_table = view(page_table, DType::i32, {problem.b, columns});
    }
    a.grad_o = view(grad_o, DType::f64, shape_of_o(problem));
    if (problem.lse_grad) a.grad_lse = view(grad_lse, DType::f64, shape_of_lse(problem));
    a.dropout_seed = dropout_seed;
    a.dropout_offset = dropout_offset;
    return a;
  }
};

// 2 sequences of 6 queries and 9 keys; 4 query heads on 2 KV heads; every extent differs.
inline Problem small_problem() {
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

// What the oracle makes of a case; a refusal fails the test.
inline oracle::Result compute(const OracleCase& c) {
  Expected<oracle::Result> result = oracle::run(c.problem, c.arguments());
  EXPECT_TRUE(result.ok()) << print(c.problem) << ": " << result.status().message();
  return result ? *std::move(result) : oracle::Result{};
}

inline std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// Row-major position in a dense [B, S, H, D] tensor.
inline std::size_t dense(std::int64_t s, std::int64_t h, std::int64_t d, std::int64_t b_,
                         std::int64_t s_, std::int64_t h_, std::int64_t d_) {
  return at(((b_ * s + s_) * h + h_) * d + d_);
}

}  // namespace attune::testing
