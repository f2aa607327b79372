#include "oracle/layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "oracle/read.h"

namespace attune::oracle {
namespace {

using Shape = std::vector<std::int64_t>;

constexpr std::int64_t kLsePadding = 32;

Status refuse(std::string message) { return {Code::invalid_argument, std::move(message)}; }

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

Status expect(const TensorView& view, const char* name, const Shape& shape) {
  const Shape got(view.shape.begin(), view.shape.begin() + view.rank);
  if (view.empty()) return refuse(fmt::format("{} is missing; the Problem asks for it", name));
  if (got != shape) {
    return refuse(fmt::format("{} has shape [{}], want [{}]", name, fmt::join(got, ", "),
                              fmt::join(shape, ", ")));
  }
  if (view.data == nullptr && element_count(shape) > 0) {
    return refuse(fmt::format("{} has no data", name));
  }
  return {};
}

// Reads an integer vector or matrix into `out`, row-major.
Status read_integers(const TensorView& view, const char* name, const Shape& shape,
                     std::vector<std::int64_t>& out) {
  if (Status status = expect(view, name, shape); !status.ok()) return status;
  out.reserve(at(element_count(shape)));
  for_each_index(view, [&](const Index& index) {
    out.push_back(static_cast<std::int64_t>(read(view, index)));
  });
  return {};
}

Status check_cu_seqlens(const std::vector<std::int64_t>& cu, const char* name, std::int64_t longest,
                        std::int64_t total) {
  for (std::size_t b = 0; b + 1 < cu.size(); ++b) {
    const std::int64_t length = cu[b + 1] - cu[b];
    if (cu[b] < 0 || length < 0 || length > longest || cu[b + 1] > total) {
      return refuse(fmt::format("{} gives sequence {} the rows {} to {}; at most {} of {} rows fit",
                                name, b, cu[b], cu[b + 1], longest, total));
    }
  }
  return {};
}

Status read_lengths(Layout& layout) {
  const Problem& p = *layout.problem;
  const Arguments& a = *layout.arguments;
  Status status;
  if (p.packed_q) {
    status = read_integers(a.cu_seqlens_q, "cu_seqlens_q", {p.b + 1}, layout.cu_seqlens_q);
    if (!status.ok()) return status;
    status = check_cu_seqlens(layout.cu_seqlens_q, "cu_seqlens_q", p.sq, p.total_q);
    if (!status.ok()) return status;
  }
  if (p.packed_k) {
    status = read_integers(a.cu_seqlens_k, "cu_seqlens_k", {p.b + 1}, layout.cu_seqlens_k);
    if (!status.ok()) return status;
    status = check_cu_seqlens(layout.cu_seqlens_k, "cu_seqlens_k", p.sk, p.total_k);
    if (!status.ok()) return status;
  }
  if (p.key_lengths) {
    status = read_integers(a.key_lengths, "key_lengths", {p.b}, layout.key_lengths);
    if (!status.ok()) return status;
    for (std::int64_t b = 0; b < p.b; ++b) {
      const std::int64_t limit =
          p.packed_k ? layout.cu_seqlens_k[at(b + 1)] - layout.cu_seqlens_k[at(b)] : p.sk;
      const std::int64_t length = layout.key_lengths[at(b)];
      if (length < 0 || length > limit) {
        return refuse(fmt::format("key_lengths[{}] = {} is outside of [0, {}]", b, length, limit));
      }
    }
  }
  if (p.page_size > 0) {
    layout.pages_per_sequence = ceil_div(p.sk, p.page_size);
    status = read_integers(a.page_table, "page_table", {p.b, layout.pages_per_sequence},
                           layout.page_table);
    if (!status.ok()) return status;
    for (std::int64_t b = 0; b < p.b; ++b) {
      // Entries past the sequence's length are never followed and may hold anything.
      const std::int64_t used = ceil_div(layout.keys(b), p.page_size);
      for (std::int64_t n = 0; n < used; ++n) {
        const std::int64_t page = layout.page_table[at(b * layout.pages_per_sequence + n)];
        if (page < 0 || page >= p.pages) {
          return refuse(
              fmt::format("page_table[{}, {}] = {} is outside of [0, {})", b, n, page, p.pages));
        }
      }
    }
  }
  return {};
}

Status check_tensors(const Layout& layout) {
  const Problem& p = *layout.problem;
  const Arguments& a = *layout.arguments;
  const Place q = layout.query_extents();
  const Place k = layout.key_extents();
  const Shape per_head = {p.hq};
  const Shape slopes = p.alibi == PerHead::batch_head ? Shape{p.b, p.hq} : per_head;
  const bool backward = p.kind == Kind::backward;
  const struct {
    bool wanted;
    const TensorView& view;
    const char* name;
    Shape shape;
  } inputs[] = {
      {true, a.q, "q", {q.outer, q.inner, p.hq, p.d}},
      {true, a.k, "k", {k.outer, k.inner, p.hkv, p.d}},
      {true, a.v, "v", {k.outer, k.inner, p.hkv, p.dv}},
      {p.descale, a.q_scale, "q_scale", {p.b, p.hq}},
      {p.descale, a.k_scale, "k_scale", {p.b, p.hkv}},
      {p.descale, a.v_scale, "v_scale", {p.b, p.hkv}},
      {p.bias.kind != BiasKind::none, a.bias, "bias", layout.bias_shape()},
      {p.alibi != PerHead::none, a.alibi_slopes, "alibi_slopes", slopes},
      {p.sink, a.sink, "sink", per_head},
      {backward && !a.o.empty(), a.o, "o", {q.outer, q.inner, p.hq, p.dv}},
      {backward && !a.lse.empty(), a.lse, "lse", layout.lse_shape()},
      {backward, a.grad_o, "grad_o", {q.outer, q.inner, p.hq, p.dv}},
      {backward && p.lse_grad, a.grad_lse, "grad_lse", layout.lse_shape()},
  };
  for (const auto& input : inputs) {
    if (!input.wanted) continue;
    if (Status status = expect(input.view, input.name, input.shape); !status.ok()) return status;
  }
  return {};
}

}  // namespace

std::int64_t element_count(const std::vector<std::int64_t>& shape) {
  constexpr auto kLimit = static_cast<std::int64_t>(PTRDIFF_MAX / sizeof(double));
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) {
    if (extent == 0) return 0;
  }
  for (const std::int64_t extent : shape) {
    if (extent > kLimit / count) throw std::bad_alloc();
    count *= extent;
  }
  return count;
}

std::int64_t Layout::queries(std::int64_t b) const {
  return problem->packed_q ? cu_seqlens_q[at(b + 1)] - cu_seqlens_q[at(b)] : problem->sq;
}

std::int64_t Layout::keys(std::int64_t b) const {
  if (problem->key_lengths) return key_lengths[at(b)];
  return problem->packed_k ? cu_seqlens_k[at(b + 1)] - cu_seqlens_k[at(b)] : problem->sk;
}

Place Layout::query(std::int64_t b, std::int64_t i) const {
  return problem->packed_q ? Place{0, cu_seqlens_q[at(b)] + i} : Place{b, i};
}

Place Layout::key(std::int64_t b, std::int64_t j) const {
  if (problem->page_size > 0) {
    return {page_table[at(b * pages_per_sequence + j / problem->page_size)],
            j % problem->page_size};
  }
  return problem->packed_k ? Place{0, cu_seqlens_k[at(b)] + j} : Place{b, j};
}

Place Layout::query_extents() const {
  return problem->packed_q ? Place{1, problem->total_q} : Place{problem->b, problem->sq};
}

Place Layout::key_extents() const {
  if (problem->page_size > 0) return {problem->pages, problem->page_size};
  return problem->packed_k ? Place{1, problem->total_k} : Place{problem->b, problem->sk};
}

std::vector<std::int64_t> Layout::lse_shape() const {
  if (problem->lse == LseLayout::padded32) {
    return {problem->b, problem->hq, ceil_div(problem->sq, kLsePadding) * kLsePadding};
  }
  if (problem->packed_q) return {problem->hq, problem->total_q};
  return {problem->b, problem->hq, problem->sq};
}

Index Layout::lse_index(std::int64_t b, std::int64_t h, std::int64_t i) const {
  if (problem->lse != LseLayout::padded32 && problem->packed_q) return {h, query(b, i).inner};
  return {b, h, i};
}

std::vector<std::int64_t> Layout::bias_shape() const {
  const Problem& p = *problem;
  return {p.bias.broadcast_b ? 1 : p.b, p.bias.broadcast_h ? 1 : p.hq,
          p.bias.broadcast_q ? 1 : p.sq, p.bias.broadcast_k ? 1 : p.sk};
}

std::size_t Layout::bias_index(std::int64_t b, std::int64_t h, std::int64_t i,
                               std::int64_t j) const {
  const Problem& p = *problem;
  std::int64_t index = p.bias.broadcast_b ? 0 : b;
  if (!p.bias.broadcast_h) index = index * p.hq + h;
  if (!p.bias.broadcast_q) index = index * p.sq + i;
  if (!p.bias.broadcast_k) index = index * p.sk + j;
  return at(index);
}

Expected<Layout> make_layout(const Problem& problem, const Arguments& arguments) {
  if (problem.b < 0 || problem.sq < 0 || problem.sk < 0 || problem.d < 0 || problem.dv < 0 ||
      problem.hq < 1 || problem.hkv < 1 || problem.hq % problem.hkv != 0 || problem.total_q < 0 ||
      problem.total_k < 0 || problem.page_size < 0 || problem.pages < 0 ||
      (problem.kind == Kind::backward && problem.dtype == DType::f8e4m3)) {
    return refuse("the Problem is not valid; validate() says why");
  }
  Layout layout;
  layout.problem = &problem;
  layout.arguments = &arguments;
  if (Status status = read_lengths(layout); !status.ok()) return status;
  if (Status status = check_tensors(layout); !status.ok()) return status;
  return layout;
}

}  // namespace attune::oracle
