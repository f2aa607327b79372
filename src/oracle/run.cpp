#include <fmt/format.h>

#include <attune/arguments.hpp>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <type_traits>
#include <vector>

#include "oracle/arithmetic.h"
#include "oracle/backward.h"
#include "oracle/forward.h"
#include "oracle/layout.h"
#include "oracle/terms.h"

namespace attune::oracle {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// o and the LSE before any row is computed: 0, and -inf for packed rows of no sequence, or +inf in
// the padding.
Result empty_result(const Layout& layout) {
  const Problem& problem = *layout.problem;
  const Place q = layout.query_extents();
  Result result;
  result.o.assign(at(element_count({q.outer, q.inner, problem.hq, problem.dv})), 0.0);
  result.lse.assign(at(element_count(layout.lse_shape())),
                    problem.lse == LseLayout::padded32 ? kInfinity : -kInfinity);
  return result;
}

template <typename Real>
void store_row(const Layout& layout, const Row<Real>& row, Result& result) {
  const Problem& problem = *layout.problem;
  const Place place = layout.query(row.b, row.i);
  const std::int64_t first =
      ((place.outer * layout.query_extents().inner + place.inner) * problem.hq + row.h) *
      problem.dv;
  for (std::size_t x = 0; x < row.o.size(); ++x) {
    result.o[at(first) + x] = static_cast<double>(row.o[x]);
  }
  const std::vector<std::int64_t> shape = layout.lse_shape();
  const Index index = layout.lse_index(row.b, row.h, row.i);
  std::int64_t flat = 0;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) flat = flat * shape[axis] + index[axis];
  result.lse[at(flat)] = static_cast<double>(row.lse);
}

template <typename Arithmetic>
std::vector<double> finished(const std::vector<typename Arithmetic::Real>& sums) {
  std::vector<double> out(sums.size());
  for (std::size_t n = 0; n < sums.size(); ++n) {
    out[n] = static_cast<double>(Arithmetic::round(sums[n]));
  }
  return out;
}

// Every row of every sequence and head, one after another. Query heads that share a KV head are
// neighbours, so that their gradients add up in one place.
template <typename Arithmetic>
Result evaluate(const Layout& layout) {
  using Real = typename Arithmetic::Real;
  const Problem& problem = *layout.problem;
  constexpr bool kExact = std::is_same_v<Real, double>;
  const bool backward = problem.kind == Kind::backward;
  const std::int64_t group = problem.hq / problem.hkv;
  Result result = empty_result(layout);
  Gradients<Real> gradients;
  if (backward) gradients = zero_gradients<Arithmetic>(layout);
  std::optional<TermSums> terms;
  if constexpr (kExact) terms.emplace(layout);
  Magnitudes sizes;
  Row<Real> row;
  for (row.b = 0; row.b < problem.b; ++row.b) {
    const std::int64_t queries = layout.queries(row.b);
    if (queries == 0) continue;
    for (std::int64_t hkv = 0; hkv < problem.hkv; ++hkv) {
      const KeysValues<Real> keys_values = gather<Arithmetic>(layout, row.b, hkv);
      if constexpr (kExact) sizes = magnitudes(layout, keys_values);
      for (row.h = hkv * group; row.h < (hkv + 1) * group; ++row.h) {
        for (row.i = 0; row.i < queries; ++row.i) {
          forward_row<Arithmetic>(layout, keys_values, row);
          store_row(layout, row, result);
          if constexpr (!kExact) {
            if (backward) load_saved<Arithmetic>(layout, row);
          }
          if (backward) backward_row<Arithmetic>(layout, keys_values, row, gradients);
          if constexpr (kExact) terms->add_row(keys_values, sizes, row);
        }
      }
    }
  }
  if constexpr (kExact) result.terms = terms->finished();
  if (backward) {
    // Per-head gradients are float32 in every dtype: only the tensors' own sums are rounded.
    using Unrounded = std::conditional_t<kExact, Exact, Plain<DType::f32>>;
    result.grad_q = finished<Arithmetic>(gradients.q);
    result.grad_k = finished<Arithmetic>(gradients.k);
    result.grad_v = finished<Arithmetic>(gradients.v);
    result.grad_bias = finished<Arithmetic>(gradients.bias);
    result.grad_sink = finished<Unrounded>(gradients.sink);
    result.grad_alibi_slopes = finished<Unrounded>(gradients.alibi_slopes);
  }
  return result;
}

}  // namespace

Expected<Result> run(const Problem& problem, const Arguments& arguments, Rounding rounding) {
  try {
    const Expected<Layout> layout = make_layout(problem, arguments);
    if (!layout) return layout.status();
    if (rounding == Rounding::exact) return evaluate<Exact>(*layout);
    switch (problem.dtype) {
      case DType::f32:
        return evaluate<Plain<DType::f32>>(*layout);
      case DType::f16:
        return evaluate<Plain<DType::f16>>(*layout);
      case DType::bf16:
        return evaluate<Plain<DType::bf16>>(*layout);
      case DType::f8e4m3:
        return evaluate<Plain<DType::f8e4m3>>(*layout);
      default:
        return Status(
            Code::unsupported,
            fmt::format("there is no plain {} computation; f32, f16, bf16 and f8e4m3 have one",
                        to_string(problem.dtype)));
    }
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "the oracle's float64 results don't fit into memory");
  } catch (const std::exception& error) {
    return Status(Code::internal, fmt::format("the oracle failed: {}", error.what()));
  }
}

}  // namespace attune::oracle
