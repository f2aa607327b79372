// The contract of docs/architecture.md, "What attention means here", step by step. The step numbers
// in the comments are those of that page.
#include "oracle/forward.h"

#include <algorithm>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "oracle/arithmetic.h"
#include "oracle/layout.h"
#include "oracle/philox.h"
#include "oracle/read.h"

namespace attune::oracle {
namespace {

template <typename Real>
constexpr Real kInfinity = std::numeric_limits<Real>::infinity();

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// Step 4 for one element: "Causal: j <= c_i. Window (left, right; -1 = unbounded):
// c_i - left <= j <= c_i + right, with or without causal."
// With c_i = i + shift + offset, each line compares d = j - i - shift, which is small, with the
// offset: c_i itself could leave 64 bits.
bool attends(const Mask& mask, std::int64_t sq, std::int64_t sk, std::int64_t i, std::int64_t j) {
  if (i < 0 || i >= sq || j < 0 || j >= sk) return false;  // "lengths limit both i and j"
  const std::int64_t shift = mask.diagonal == Diagonal::bottom_right ? sk - sq : 0;
  const std::int64_t d = j - i - shift;
  if (mask.causal && !(d <= mask.offset)) return false;
  std::int64_t bound = 0;
  if (mask.left >= 0) {
    // A bound below what 64 bits hold excludes nothing.
    const bool below = __builtin_sub_overflow(mask.offset, mask.left, &bound);
    if (!below && !(bound <= d)) return false;
  }
  if (mask.right >= 0) {
    const bool above = __builtin_add_overflow(mask.offset, mask.right, &bound);
    if (!above && !(d <= bound)) return false;
  }
  return true;
}

// One row of a [B|1, Hq|1, Sq|1, Sk|1] tensor, its broadcast dimensions repeated.
template <typename Real>
void read_bias_row(const TensorView& bias, const Row<Real>& row, std::int64_t count, Real* out) {
  const auto pick = [&](std::size_t axis, std::int64_t index) {
    return bias.shape[axis] == 1 ? 0 : index;
  };
  const std::int64_t offset = offset_of(bias, {pick(0, row.b), pick(1, row.h), pick(2, row.i), 0});
  read_row(bias, offset, bias.shape[3] == 1 ? 0 : bias.strides[3], count, out);
}

// Step 4, all of it but scores that turn out as -inf: the attended keys.
template <typename Real>
void list_keys(const Layout& layout, std::int64_t count, Row<Real>& row) {
  const Problem& problem = *layout.problem;
  const std::int64_t sq = layout.queries(row.b);
  if (problem.bias.kind != BiasKind::none) {
    row.bias.resize(at(count));
    read_bias_row(layout.arguments->bias, row, count, row.bias.data());
  }
  row.keys.clear();
  for (std::int64_t j = 0; j < count; ++j) {
    if (!attends(problem.mask, sq, count, row.i, j)) continue;
    if (problem.bias.kind == BiasKind::boolean && row.bias[at(j)] == 0) continue;
    if (problem.bias.kind == BiasKind::additive && row.bias[at(j)] == -kInfinity<Real>) continue;
    row.keys.push_back(j);
  }
}

// What stored numbers of q, k and v are multiplied by, beside the scale of step 1.
template <typename Real>
void read_scales(const Layout& layout, Row<Real>& row) {
  const Problem& problem = *layout.problem;
  const Arguments& arguments = *layout.arguments;
  row.scale = static_cast<Real>(problem.effective_scale());
  row.value_scale = 1;
  if (!problem.descale) return;
  const std::int64_t hkv = row.h / (problem.hq / problem.hkv);
  row.scale *= static_cast<Real>(read(arguments.q_scale, {row.b, row.h}));
  row.scale *= static_cast<Real>(read(arguments.k_scale, {row.b, hkv}));
  row.value_scale = static_cast<Real>(read(arguments.v_scale, {row.b, hkv}));
}

// Steps 1 to 3: row.scores, one for each of row.keys. A key whose score is -inf, wherever from,
// leaves the list: -inf is what "masked out" means.
template <typename Arithmetic, typename Real = typename Arithmetic::Real>
void score_keys(const Layout& layout, const KeysValues<Real>& keys_values, Row<Real>& row) {
  const Problem& problem = *layout.problem;
  const Arguments& arguments = *layout.arguments;
  const auto round = [](Real x) { return Arithmetic::round(x); };
  const Real cap = static_cast<Real>(problem.softcap);
  row.diagonal = keys_values.count - layout.queries(row.b);
  row.alibi_slope = 0;
  if (problem.alibi != PerHead::none) {
    const bool per_batch = problem.alibi == PerHead::batch_head;
    row.alibi_slope = static_cast<Real>(
        read(arguments.alibi_slopes, per_batch ? Index{row.b, row.h} : Index{row.h}));
  }

  row.scores.clear();
  row.cap_slope.clear();
  if (row.keys.empty()) return;
  dot_columns(row.q, keys_values.k_transposed, keys_values.count, row.keys.front(),
              row.keys.back() + 1, row.scratch);
  std::size_t kept = 0;
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const std::int64_t j = row.keys[n];
    // 1. s = scale * (q_i . k_j)
    Real s = round(row.scale * round(row.scratch[at(j)]));
    // 2. softcap c > 0: s = c * tanh(s / c)
    Real cap_slope = 1;
    if (problem.softcap > 0) {
      const Real t = round(std::tanh(round(s / cap)));
      s = round(cap * t);
      cap_slope = 1 - t * t;
    }
    // 3. bias: s += bias[b, h, i, j]; ALiBi: s -= slope_h * |i + (Sk - Sq) - j|
    if (problem.bias.kind == BiasKind::additive) s = round(s + row.bias[at(j)]);
    if (problem.alibi != PerHead::none) {
      s = round(s - row.alibi_slope * row.distance(n));
    }
    if (s == -kInfinity<Real>) continue;
    row.keys[kept++] = j;
    row.scores.push_back(s);
    row.cap_slope.push_back(cap_slope);
  }
  row.keys.resize(kept);
}

// The row's sink logit; -inf, which has no share of anything, without one.
template <typename Real>
Real sink_of(const Layout& layout, const Row<Real>& row) {
  return layout.problem->sink ? static_cast<Real>(read(layout.arguments->sink, {row.h}))
                              : -kInfinity<Real>;
}

// Step 5: "p = softmax over j, with an optional sink logit per head in the denominator. LSE =
// natural log of that denominator, before dropout."
template <typename Arithmetic, typename Real = typename Arithmetic::Real>
void normalise(const Layout& layout, Row<Real>& row) {
  const Real sink = sink_of(layout, row);
  row.p.resize(row.scores.size());
  row.lse = -kInfinity<Real>;  // "a row with nothing to attend to": no key and no sink
  row.p_sink = 0;
  if (row.keys.empty() && sink == -kInfinity<Real>) return;
  Real top = -kInfinity<Real>;  // of the keys
  for (const Real s : row.scores) top = std::max(top, s);
  const Real largest = std::max(sink, top);
  Real denominator = 0;
  for (std::size_t n = 0; n < row.p.size(); ++n) {
    row.p[n] = std::exp(row.scores[n] - largest);
    denominator += row.p[n];
  }
  if (sink != -kInfinity<Real>) {
    row.p_sink = std::exp(sink - largest);
    denominator += row.p_sink;
  }
  row.lse = largest + std::log(denominator);
  row.p_sink /= denominator;
  if constexpr (Arithmetic::kRoundsExponentials) {
    // Against the largest score: a sink is in the denominator alone, which is of what was not rounded.
    const Real share = std::exp(top - largest);
    for (std::size_t n = 0; n < row.p.size(); ++n) {
      row.p[n] = Arithmetic::round_exponential(std::exp(row.scores[n] - top)) * share;
    }
  }
  for (Real& p : row.p) p = Arithmetic::round(p / denominator);
}

// Step 6's factor: keep ? 1 / (1 - dropout) : 0.
template <typename Real>
void draw_dropout(const Layout& layout, Row<Real>& row) {
  const Problem& problem = *layout.problem;
  row.z.assign(row.keys.size(), Real{1});
  if (!(problem.dropout > 0)) return;
  const Real factor = static_cast<Real>(1 / (1 - problem.dropout));
  KeptRow kept(problem, layout.arguments->dropout_seed, layout.arguments->dropout_offset, row.b,
               row.h, row.i);
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    row.z[n] = kept(row.keys[n]) ? factor : Real{0};
  }
}

}  // namespace

template <typename Arithmetic>
KeysValues<typename Arithmetic::Real> gather(const Layout& layout, std::int64_t b,
                                             std::int64_t hkv) {
  using Real = typename Arithmetic::Real;
  const Problem& problem = *layout.problem;
  KeysValues<Real> out;
  out.count = layout.keys(b);
  const auto fill = [&](const TensorView& view, std::int64_t width, std::vector<Real>& rows,
                        std::vector<Real>* transposed) {
    rows.resize(at(element_count({out.count, width})));
    if (transposed != nullptr) transposed->resize(rows.size());
    for (std::int64_t j = 0; j < out.count && width > 0; ++j) {
      const Place place = layout.key(b, j);
      Real* into = rows.data() + j * width;
      read_row(view, offset_of(view, {place.outer, place.inner, hkv, 0}), view.strides[3], width,
               into);
      if (transposed == nullptr) continue;
      for (std::int64_t x = 0; x < width; ++x) (*transposed)[at(x * out.count + j)] = into[x];
    }
  };
  const bool backward = problem.kind == Kind::backward;
  fill(layout.arguments->k, problem.d, out.k, &out.k_transposed);
  fill(layout.arguments->v, problem.dv, out.v, backward ? &out.v_transposed : nullptr);
  return out;
}

template <typename Arithmetic>
void forward_row(const Layout& layout, const KeysValues<typename Arithmetic::Real>& keys_values,
                 Row<typename Arithmetic::Real>& row) {
  using Real = typename Arithmetic::Real;
  const Problem& problem = *layout.problem;
  const TensorView& q = layout.arguments->q;
  const Place place = layout.query(row.b, row.i);
  row.q.resize(at(problem.d));
  read_row(q, offset_of(q, {place.outer, place.inner, row.h, 0}), q.strides[3], problem.d,
           row.q.data());

  read_scales(layout, row);
  list_keys(layout, keys_values.count, row);
  score_keys<Arithmetic>(layout, keys_values, row);
  normalise<Arithmetic>(layout, row);
  draw_dropout(layout, row);

  // 6. p = keep ? p / (1 - dropout) : 0.  7. o_i = sum over j of p_ij v_j
  row.o.assign(at(problem.dv), Real{0});
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const Real p = Arithmetic::round(row.p[n] * row.z[n]);
    const Real* v = keys_values.v.data() + row.keys[n] * problem.dv;
    for (std::size_t x = 0; x < row.o.size(); ++x) row.o[x] += p * v[x];
  }
  for (Real& x : row.o) x = Arithmetic::round_o(x * row.value_scale);
}

template <typename Arithmetic>
void load_saved(const Layout& layout, Row<typename Arithmetic::Real>& row) {
  using Real = typename Arithmetic::Real;
  const Problem& problem = *layout.problem;
  const Arguments& arguments = *layout.arguments;
  if (!arguments.o.empty()) {
    const Place place = layout.query(row.b, row.i);
    read_row(arguments.o, offset_of(arguments.o, {place.outer, place.inner, row.h, 0}),
             arguments.o.strides[3], problem.dv, row.o.data());
  }
  if (arguments.lse.empty()) return;
  const Real lse = static_cast<Real>(read(arguments.lse, layout.lse_index(row.b, row.h, row.i)));
  // Scores that were rounded to float16 keep the sum of their own: beside the LSE of better scores
  // their probabilities could add up to far more than 1, and the yardstick would be worth nothing.
  if (Arithmetic::kRoundsScores && lse != -kInfinity<Real>) return;
  row.lse = lse;
  if (lse == -kInfinity<Real>) return;  // such a row has no gradients
  row.p_sink = std::exp(sink_of(layout, row) - row.lse);
  for (std::size_t n = 0; n < row.p.size(); ++n) {
    row.p[n] = Arithmetic::round(std::exp(row.scores[n] - row.lse));
  }
}

#define ATTUNE_INSTANTIATE(A)                                                             \
  template KeysValues<A::Real> gather<A>(const Layout&, std::int64_t, std::int64_t);      \
  template void forward_row<A>(const Layout&, const KeysValues<A::Real>&, Row<A::Real>&); \
  template void load_saved<A>(const Layout&, Row<A::Real>&);
ATTUNE_INSTANTIATE(Exact)
ATTUNE_INSTANTIATE(Plain<DType::f32>)
ATTUNE_INSTANTIATE(Plain<DType::f16>)
ATTUNE_INSTANTIATE(Plain<DType::bf16>)
ATTUNE_INSTANTIATE(Plain<DType::f8e4m3>)
#undef ATTUNE_INSTANTIATE

}  // namespace attune::oracle
