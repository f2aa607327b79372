// Notation: u is float32's rounding, 2^-23; everything here is in units of u. e_ij bounds the error
// of score s_ij, |s| its intermediate values: products and sums of float32 numbers lose at most
// about u times the sum of their terms' absolute values. A relative error of p_ij is an absolute
// error of the score in its exponent.
//
// The terms of o, dQ, dK and dV are many for each of many elements. Their roundings are
// independent, so they add like the root of their squares; the plain computation's largest error
// over all the elements shows well what remains. The gradients of bias, slopes and sinks may have
// few elements and very long sums, of which the plain computation is one sample that can be right by
// luck: their terms simply add.
//
// What no kernel can help either: an o that was saved in float16 or bfloat16 carries its own
// roundings into delta_i, one number for the whole row, which S_i bounds. What it does to a row's
// part of an element is known with its sign, and adds like the root of squares over rows.
//
// An f8e4m3 computation rounds P, times a power of two that makes a row's largest 256, to E4M3. That is
// half a unit in its last place, or in that of its subnormal numbers, of every p_ij; as independent of each
// other as float32's roundings are, and as one sample of them as right by luck: they are among o's terms.
//
// Matrix units add up products of E4M3, 32 at a time and to the sum so far, in numbers that keep 13 bits below the
// largest of the terms and cut the others there (seen on Hopper: 256 + 2^-5 is told from 256, 256 + 2^-6 is not, nor
// 256 + 31 * 2^-6). Each may lose 2^-13 of the largest, half of it on average: up to 2^-9 of it when all are cut
// alike. Taken are 2^-10 of the sum of the terms' absolute values, in place of u.
//
// All of this need not be precise, so that float32 does where there is much of it. What float32
// can't hold, attended infinities and NaN among it, is left out and the tolerance stays as it is.
#include "oracle/terms.h"

#include <algorithm>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "oracle/read.h"

namespace attune::oracle {
namespace {

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// 1 in units of u: p can't be off by more than it can be, however large the scores.
constexpr double kWhole = 0x1p23;

double square(double x) { return x * x; }

// An error estimate of something that is not finite says nothing.
double finite_or_zero(double x) {
  return std::fabs(x) <= std::numeric_limits<double>::max() ? x : 0;
}

float float_or_zero(double x) {
  return std::fabs(x) <= static_cast<double>(std::numeric_limits<float>::max())
             ? static_cast<float>(x)
             : 0;
}

void add_element(Terms::Sum& sum, double error) {
  error = finite_or_zero(error);
  sum.max = std::max(sum.max, error);
  sum.squares = finite_or_zero(sum.squares + square(error));
}

void add_squares(double factor, const float* squares, std::size_t count, float* out) {
  const float square_of_factor = float_or_zero(square(factor));
  if (square_of_factor < 1e-36F) return;  // nothing, and subnormal numbers are slow
  for (std::size_t x = 0; x < count; ++x) out[x] += square_of_factor * squares[x];
}

std::vector<float> squares_of(const std::vector<double>& values) {
  std::vector<float> out(values.size());
  for (std::size_t n = 0; n < out.size(); ++n) out[n] = float_or_zero(square(values[n]));
  return out;
}

std::vector<float> magnitudes_of(const std::vector<double>& values) {
  std::vector<float> out(values.size());
  for (std::size_t n = 0; n < out.size(); ++n) out[n] = float_or_zero(std::fabs(values[n]));
  return out;
}

Terms::Sum finished_squares(const std::vector<float>& elements) {
  Terms::Sum sum;
  for (const float x : elements) add_element(sum, std::sqrt(static_cast<double>(x)));
  return sum;
}

// The rounding of an o that was saved in `dtype`, in units of u; float32's is among the terms.
double saved_rounding(DType dtype) {
  if (dtype == DType::f16) return 0x1p-10 / 0x1p-23;
  if (dtype == DType::bf16) return 0x1p-7 / 0x1p-23;
  return 0;
}

// What products and sums of the terms of a score lose, in units of u.
double product_rounding(DType dtype) { return dtype == DType::f8e4m3 ? 0x1p-10 / 0x1p-23 : 1; }

// What rounding P to E4M3 does to each probability of a row, in units of u.
class ProbabilityRounding {
 public:
  ProbabilityRounding(DType dtype, const std::vector<double>& p) : rounds_(dtype == DType::f8e4m3) {
    if (!rounds_) return;
    for (const double x : p) largest_ = std::max(largest_, x);
  }
  [[nodiscard]] double of(double p) const {
    if (!rounds_) return 0;
    return std::max(0x1p-4 * p, 0x1p-10 / 0x1p8 * largest_) / 0x1p-23;
  }

 private:
  bool rounds_;
  double largest_ = 0;
};

}  // namespace

Magnitudes magnitudes(const Layout& layout, const KeysValues<double>& keys_values) {
  Magnitudes out;
  out.k_transposed = magnitudes_of(keys_values.k_transposed);
  out.v_squares = squares_of(keys_values.v);
  if (layout.problem->kind == Kind::forward) return out;
  out.v_transposed = magnitudes_of(keys_values.v_transposed);
  out.k_squares = squares_of(keys_values.k);
  return out;
}

TermSums::TermSums(const Layout& layout) : layout_(&layout) {
  const Problem& p = *layout.problem;
  if (p.kind == Kind::forward) return;
  const Place k = layout.key_extents();
  k_.resize(at(element_count({k.outer, k.inner, p.hkv, p.d})));
  v_.resize(at(element_count({k.outer, k.inner, p.hkv, p.dv})));
  if (p.bias.kind == BiasKind::additive && p.bias.grad) {
    bias_.resize(element_count(layout.bias_shape()));
  }
  if (p.sink && p.sink_grad) sink_.resize(p.hq);
  if (p.alibi != PerHead::none && p.alibi_grad) {
    alibi_slopes_.resize(element_count({p.alibi == PerHead::batch_head ? p.b : 1, p.hq}));
  }
}

void TermSums::add_row(const KeysValues<double>& keys_values, const Magnitudes& magnitudes,
                       const Row<double>& row) {
  add_forward(keys_values, magnitudes, row);
  if (layout_->problem->kind == Kind::backward) add_backward(keys_values, magnitudes, row);
}

// e_ij = |scale| sum |q k|, 2^13 times as much of f8e4m3, + |bias| + |slope dist|, the scale with those of q and k; softcap passes on
// as much as its slope says, and has an error of its own.
// LSE_i: sum over j of p_ij (1 + e_ij)     o_ix: root of sum of (p_ij Z_ij v_jx (1 + e_ij + e_i))^2
// where e_i is the LSE's; f8e4m3 adds the squares of what its rounding of p_ij does.
void TermSums::add_forward(const KeysValues<double>& keys_values, const Magnitudes& magnitudes,
                           const Row<double>& row) {
  const Problem& problem = *layout_->problem;
  score_errors_.resize(row.keys.size());
  if (row.keys.empty()) return;
  q_magnitudes_ = magnitudes_of(row.q);
  dot_columns(q_magnitudes_, magnitudes.k_transposed, keys_values.count, row.keys.front(),
              row.keys.back() + 1, dots_);
  const double scale = std::fabs(row.scale), product = product_rounding(problem.dtype);
  double lse_error = 0;
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const auto j = at(row.keys[n]);
    double error = product * scale * static_cast<double>(dots_[j]) * row.cap_slope[n];
    if (problem.softcap > 0)
      error = std::max(error, problem.softcap * std::sqrt(1 - row.cap_slope[n]));
    if (problem.bias.kind == BiasKind::additive) error += std::fabs(row.bias[j]);
    if (problem.alibi != PerHead::none) error += std::fabs(row.alibi_slope) * row.distance(n);
    score_errors_[n] = finite_or_zero(error);
    lse_error += finite_or_zero(row.p[n] * (1 + score_errors_[n]));
  }
  if (std::isfinite(row.lse)) add_element(rows_.lse, lse_error);

  element_squares_.assign(row.o.size(), 0);
  const ProbabilityRounding rounding(problem.dtype, row.p);
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const double p_error = row.p[n] * (1 + std::min(score_errors_[n] + lse_error, kWhole));
    add_squares(row.value_scale * row.z[n] * std::hypot(p_error, rounding.of(row.p[n])),
                magnitudes.v_squares.data() + row.keys[n] * problem.dv, row.o.size(),
                element_squares_.data());
  }
  for (const float x : element_squares_) add_element(rows_.o, std::sqrt(static_cast<double>(x)));
}

// r_ij = e_ij + |LSE_i|: relative error of p_ij = exp(s_ij - LSE_i), LSE_i being a float32
// dV_jx: root of sum over i of (p_ij Z_ij dO_ix (1 + r_ij))^2
// D_i = sum |dO o| + |dLSE|: error of delta_i - dLSE_i
// S_i = root of sum of (dO o)^2, in units of the rounding of o
// E_ij = p_ij (Z_ij sum |dO v| + D_i) + r_ij |dS_ij|: error of dS_ij, which gives those of dBias and
// the slopes.
// dK_jx: root of sum over i of scale^2 (E_ij^2 + (p_ij S_i)^2) q_ix^2
// dQ_ix: root of sum over j of (scale E_ij k_jx)^2, plus S_i |scale sum over j of p_ij k_jx|
// dSink_h: sum over i of exp(sink - LSE_i) (D_i + (|sink| + |LSE_i|) |delta_i - dLSE_i|)
void TermSums::add_backward(const KeysValues<double>& keys_values, const Magnitudes& magnitudes,
                            const Row<double>& row) {
  const Problem& problem = *layout_->problem;
  const Arguments& arguments = *layout_->arguments;
  if (!std::isfinite(row.lse)) return;
  const Place query = layout_->query(row.b, row.i);
  grad_o_.resize(at(problem.dv));
  read_row(arguments.grad_o, offset_of(arguments.grad_o, {query.outer, query.inner, row.h, 0}),
           arguments.grad_o.strides[3], problem.dv, grad_o_.data());
  double grad_lse = 0;
  if (problem.lse_grad) {
    grad_lse = read(arguments.grad_lse, layout_->lse_index(row.b, row.h, row.i));
  }
  double delta = -grad_lse;
  double delta_error = std::fabs(grad_lse);
  double delta_saved = 0;
  for (std::size_t x = 0; x < grad_o_.size(); ++x) {
    const double term = grad_o_[x] * row.o[x];
    delta += term;
    delta_error += std::fabs(term);
    delta_saved += square(term);
  }
  delta_saved = finite_or_zero(saved_rounding(problem.dtype) * std::sqrt(delta_saved));
  const double lse = std::fabs(row.lse);
  if (!sink_.plain.empty() && row.p_sink > 0) {
    const double sink = std::fabs(read(arguments.sink, {row.h}));
    sink_.plain[at(row.h)] +=
        finite_or_zero(row.p_sink * (delta_error + (sink + lse) * std::fabs(delta)));
    sink_.saved[at(row.h)] += square(row.p_sink * delta_saved);
  }
  if (row.keys.empty()) return;

  grad_o_magnitudes_ = magnitudes_of(grad_o_);
  dot_columns(grad_o_magnitudes_, magnitudes.v_transposed, keys_values.count, row.keys.front(),
              row.keys.back() + 1, dots_);
  grad_o_squares_ = squares_of(grad_o_);
  q_squares_ = squares_of(row.q);
  element_squares_.assign(at(problem.d), 0);
  p_times_k_.assign(at(problem.d), 0);
  const double scale = problem.effective_scale();
  const Place k_extents = layout_->key_extents();
  const std::int64_t hkv = row.h / (problem.hq / problem.hkv);
  double slope_error = 0, p_sum = 0, slope_sum = 0;
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const std::int64_t j = row.keys[n];
    const Place key = layout_->key(row.b, j);
    const std::int64_t kv_row = (key.outer * k_extents.inner + key.inner) * problem.hkv + hkv;
    const double p_error = std::min(score_errors_[n] + lse, kWhole);
    add_squares(row.p[n] * row.z[n] * (1 + p_error), grad_o_squares_.data(), grad_o_.size(),
                v_.data() + kv_row * problem.dv);

    // row.scratch is dP still, as backward_row() left it.
    const double grad_s = std::fabs(row.p[n] * (row.z[n] * row.scratch[at(j)] - delta));
    double error = finite_or_zero(
        row.p[n] * (row.z[n] * static_cast<double>(dots_[at(j)]) + delta_error) + p_error * grad_s);
    if (!bias_.plain.empty()) {
      const std::size_t element = layout_->bias_index(row.b, row.h, row.i, j);
      bias_.plain[element] += error;
      if (!problem.bias.broadcast_k) bias_.saved[element] += square(row.p[n] * delta_saved);
    }
    slope_error += error * row.distance(n);
    p_sum += row.p[n];
    slope_sum += row.p[n] * row.distance(n);
    const double slope = row.cap_slope[n];
    if (problem.softcap > 0) {
      // The slope 1 - t^2, t = tanh(s / c), has an error of 1, and of 2 t of what s / c has.
      error = error * slope + grad_s * (1 + 2 * score_errors_[n] / problem.softcap);
    }
    add_squares(scale * error, magnitudes.k_squares.data() + j * problem.d, row.q.size(),
                element_squares_.data());
    const double grad_k_error = std::hypot(error, row.p[n] * slope * delta_saved);
    add_squares(scale * grad_k_error, q_squares_.data(), row.q.size(),
                k_.data() + kv_row * problem.d);
    if (delta_saved == 0) continue;
    const double* k = keys_values.k.data() + j * problem.d;
    for (std::size_t x = 0; x < row.q.size(); ++x) p_times_k_[x] += row.p[n] * slope * k[x];
  }
  for (std::size_t x = 0; x < row.q.size(); ++x) {
    add_element(rows_.grad_q, std::sqrt(static_cast<double>(element_squares_[x])) +
                                  finite_or_zero(std::fabs(scale * p_times_k_[x]) * delta_saved));
  }
  if (!bias_.plain.empty() && problem.bias.broadcast_k) {
    bias_.saved[layout_->bias_index(row.b, row.h, row.i, 0)] +=
        finite_or_zero(square(p_sum * delta_saved));
  }
  if (!alibi_slopes_.plain.empty()) {
    const std::int64_t b = problem.alibi == PerHead::batch_head ? row.b : 0;
    const std::size_t element = at(b * problem.hq + row.h);
    alibi_slopes_.plain[element] += slope_error;
    alibi_slopes_.saved[element] += finite_or_zero(square(slope_sum * delta_saved));
  }
}

Terms TermSums::finished() const {
  Terms terms = rows_;
  terms.grad_k = finished_squares(k_);
  terms.grad_v = finished_squares(v_);
  terms.grad_bias = bias_.finished();
  terms.grad_sink = sink_.finished();
  terms.grad_alibi_slopes = alibi_slopes_.finished();
  return terms;
}

void TermSums::Long::resize(std::int64_t count) {
  plain.resize(at(count));
  saved.resize(at(count));
}

Terms::Sum TermSums::Long::finished() const {
  Terms::Sum sum;
  for (std::size_t n = 0; n < plain.size(); ++n) add_element(sum, plain[n] + std::sqrt(saved[n]));
  return sum;
}

}  // namespace attune::oracle
