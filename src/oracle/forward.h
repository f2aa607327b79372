// One row of attention: query i of (sequence b, query head h) against that sequence's keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "oracle/layout.h"

namespace attune::oracle {

// The keys and values of one (sequence, KV head) as plain arrays.
template <typename Real>
struct KeysValues {
  std::int64_t count = 0;             // keys
  std::vector<Real> k, k_transposed;  // [count, D] and [D, count]
  std::vector<Real> v, v_transposed;  // [count, Dv] and, for backward only, [Dv, count]
};

// What one row leaves behind. The vectors behind `keys` run over the attended keys only, so that
// whatever stands in a masked-out key or value is never multiplied with anything.
template <typename Real>
struct Row {
  std::int64_t b = 0, h = 0, i = 0;
  std::vector<std::int64_t> keys;  // attended j, ascending
  std::vector<Real> scores;        // after bias and ALiBi; p is their softmax
  std::vector<Real> p;             // softmax, before dropout
  std::vector<Real> z;             // dropout: 0 or 1 / (1 - probability); 1 without dropout
  std::vector<Real> cap_slope;     // d softcap(s) / d s; 1 without softcap
  std::vector<Real> o;             // [Dv]
  Real lse = 0;
  Real scale = 0;             // of q . k, with the scales of q and k
  Real value_scale = 1;       // of v
  Real alibi_slope = 0;       // 0 without ALiBi
  std::int64_t diagonal = 0;  // Sk - Sq, which ALiBi's distances count from
  Real p_sink = 0;            // the sink's share of the denominator

  std::vector<Real> q;        // [D]
  std::vector<Real> scratch;  // [count]
  std::vector<Real> bias;     // [count]

  // |i + (Sk - Sq) - j| of the n-th attended key.
  [[nodiscard]] Real distance(std::size_t n) const {
    return static_cast<Real>(std::abs(i + diagonal - keys[n]));
  }
};

// Multiplies and adds term by term: out[n] = sum over m of x[m] * columns[m, n], for n in
// [first, last) of rows `width` long. Sequential in m for each n, which is the order that float32
// sums are judged by, and yet contiguous in memory. Four terms at a time, for fewer trips to `out`.
template <typename Real>
void dot_columns(const std::vector<Real>& x, const std::vector<Real>& columns, std::int64_t width,
                 std::int64_t first, std::int64_t last, std::vector<Real>& out) {
  out.assign(static_cast<std::size_t>(width), Real{0});
  Real* result = out.data();
  const Real* column = columns.data();
  std::size_t m = 0;
  for (; m + 4 <= x.size(); m += 4, column += 4 * width) {
    const Real a = x[m], b = x[m + 1], c = x[m + 2], d = x[m + 3];
    const Real *second = column + width, *third = second + width, *fourth = third + width;
    for (std::int64_t n = first; n < last; ++n) {
      result[n] = (((result[n] + a * column[n]) + b * second[n]) + c * third[n]) + d * fourth[n];
    }
  }
  for (; m < x.size(); ++m, column += width) {
    const Real a = x[m];
    for (std::int64_t n = first; n < last; ++n) result[n] += a * column[n];
  }
}

// Arithmetic is Exact or Plain<dtype>, see arithmetic.h.
template <typename Arithmetic>
[[nodiscard]] KeysValues<typename Arithmetic::Real> gather(const Layout& layout, std::int64_t b,
                                                           std::int64_t hkv);

// Fills `row` from row.b, row.h and row.i.
template <typename Arithmetic>
void forward_row(const Layout& layout, const KeysValues<typename Arithmetic::Real>& keys_values,
                 Row<typename Arithmetic::Real>& row);

// Replaces what forward_row() made by what a backward kernel is given instead, where `arguments`
// holds it: o, and in float32 the LSE, from which the probabilities are computed anew.
template <typename Arithmetic>
void load_saved(const Layout& layout, Row<typename Arithmetic::Real>& row);

}  // namespace attune::oracle
