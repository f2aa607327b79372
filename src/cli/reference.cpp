#include "cli/reference.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "cli/machine.h"
#include "cli/progress.h"
#include "problem/lengths.h"
#include "problem/shapes.h"

namespace attune::cli {
namespace {

// The part [start, start + length) of one dimension.
TensorView part(TensorView view, int axis, std::int64_t start, std::int64_t length) {
  const auto a = static_cast<std::size_t>(axis);
  const std::int64_t bytes =
      start * view.strides[a] * static_cast<std::int64_t>(size_of(view.dtype));
  if (view.data != nullptr) view.data = static_cast<std::byte*>(view.data) + bytes;
  view.shape[a] = length;
  return view;
}

// One sequence and the query heads of one KV head; cuts that slice out of any tensor.
struct Slice {
  const Problem& problem;
  std::int64_t b = 0;
  std::int64_t kv_head = 0;
  std::int64_t group = 1;  // query heads a KV head serves
  std::int64_t q_start = 0, q_length = 0, k_start = 0, k_length = 0;  // of packed blocks

  [[nodiscard]] std::int64_t first_head() const { return kv_head * group; }

  [[nodiscard]] TensorView query_side(const TensorView& view) const {
    const TensorView rows =
        problem.packed_q ? part(view, 1, q_start, q_length) : part(view, 0, b, 1);
    return part(rows, 2, first_head(), group);
  }
  [[nodiscard]] TensorView key_side(const TensorView& view) const {
    TensorView rows = view;
    if (problem.packed_k) {
      rows = part(view, 1, k_start, k_length);
    } else if (problem.page_size == 0) {
      rows = part(view, 0, b, 1);
    }
    return part(rows, 2, kv_head, 1);
  }
  [[nodiscard]] TensorView bias(const TensorView& view) const {
    const TensorView batch = problem.bias.broadcast_b ? view : part(view, 0, b, 1);
    return problem.bias.broadcast_h ? batch : part(batch, 1, first_head(), group);
  }
  [[nodiscard]] TensorView slopes(const TensorView& view) const {
    if (problem.alibi == PerHead::head) return heads(view);
    return query_heads(view);
  }
  // Of [B, Hq] and [B, Hkv].
  [[nodiscard]] TensorView query_heads(const TensorView& view) const {
    return part(part(view, 0, b, 1), 1, first_head(), group);
  }
  [[nodiscard]] TensorView key_head(const TensorView& view) const {
    return part(part(view, 0, b, 1), 1, kv_head, 1);
  }
  [[nodiscard]] TensorView heads(const TensorView& view) const {
    return part(view, 0, first_head(), group);
  }
  [[nodiscard]] TensorView lse(const TensorView& view) const {
    if (problem.packed_q) {
      return part(part(view, 0, first_head(), group), 1, q_start, q_length);
    }
    return part(part(view, 0, b, 1), 1, first_head(), group);
  }
};

struct SliceCall {
  Problem problem;
  Arguments arguments;
  std::array<std::int32_t, 2> cu_q{};
  std::array<std::int32_t, 2> cu_k{};
};

std::int64_t cu_at(const TensorView& cu, std::int64_t b) {
  return static_cast<const std::int32_t*>(cu.data)[b * cu.strides[0]];
}

Slice make_slice(const Problem& problem, const Arguments& arguments, std::int64_t b,
                 std::int64_t kv_head) {
  Slice slice{.problem = problem, .b = b, .kv_head = kv_head, .group = problem.hq / problem.hkv};
  if (problem.packed_q) {
    slice.q_start = cu_at(arguments.cu_seqlens_q, b);
    slice.q_length = cu_at(arguments.cu_seqlens_q, b + 1) - slice.q_start;
  }
  if (problem.packed_k) {
    slice.k_start = cu_at(arguments.cu_seqlens_k, b);
    slice.k_length = cu_at(arguments.cu_seqlens_k, b + 1) - slice.k_start;
  }
  return slice;
}

// By how much dropout's offset moves from one head to the next. A slice has all queries and keys of its
// sequence, so that within a head nothing moves.
std::uint64_t numbers_a_head(const Problem& problem) {
  constexpr std::uint64_t kBlocks = 32;
  if (problem.dropout_stream == DropoutStream::fa2) return kBlocks;
  return static_cast<std::uint64_t>(problem.sq) * static_cast<std::uint64_t>(problem.sk);
}

// The Problem and the inputs of one slice. `call` has to stay where it is: its views point into it.
void fill(const Slice& slice, const Arguments& all, SliceCall& call) {
  Problem& p = call.problem;
  Arguments& a = call.arguments;
  p = slice.problem;
  p.b = 1;
  p.hq = slice.group;
  p.hkv = 1;
  a.q = slice.query_side(all.q);
  a.k = slice.key_side(all.k);
  a.v = slice.key_side(all.v);
  p.q_strides = a.q.strides;
  p.k_strides = a.k.strides;
  p.v_strides = a.v.strides;
  p.o_strides = {};
  if (p.packed_q) {
    p.total_q = slice.q_length;
    call.cu_q = {0, static_cast<std::int32_t>(slice.q_length)};
    a.cu_seqlens_q = TensorView::contiguous(call.cu_q.data(), DType::i32, {2});
  }
  if (p.packed_k) {
    p.total_k = slice.k_length;
    call.cu_k = {0, static_cast<std::int32_t>(slice.k_length)};
    a.cu_seqlens_k = TensorView::contiguous(call.cu_k.data(), DType::i32, {2});
  }
  if (p.page_size > 0) a.page_table = part(all.page_table, 0, slice.b, 1);
  if (p.key_lengths) a.key_lengths = part(all.key_lengths, 0, slice.b, 1);
  if (p.descale) {
    a.q_scale = slice.query_heads(all.q_scale);
    a.k_scale = slice.key_head(all.k_scale);
    a.v_scale = slice.key_head(all.v_scale);
  }
  if (p.bias.kind != BiasKind::none) a.bias = slice.bias(all.bias);
  if (p.alibi != PerHead::none) a.alibi_slopes = slice.slopes(all.alibi_slopes);
  if (p.sink) a.sink = slice.heads(all.sink);
  // Heads are numbered through the whole problem; the slice's own start at 0.
  a.dropout_seed = all.dropout_seed;
  a.dropout_offset = all.dropout_offset +
                     static_cast<std::uint64_t>(slice.b * slice.problem.hq + slice.first_head()) *
                         numbers_a_head(slice.problem);
  if (p.kind == Kind::backward) {
    if (!all.o.empty()) a.o = slice.query_side(all.o);
    if (!all.lse.empty()) a.lse = slice.lse(all.lse);
    a.grad_o = slice.query_side(all.grad_o);
    if (p.lse_grad) a.grad_lse = slice.lse(all.grad_lse);
  }
}

// A row-major view of doubles in the shape of the tensor `name`.
TensorView view_of(const Problem& problem, const TensorView Arguments::*tensor,
                   std::vector<double>& values) {
  TensorView view;
  for (const TensorSpec& spec : tensors_of(problem)) {
    if (spec.view != tensor) continue;
    view = row_major_view(spec);
  }
  view.dtype = DType::f64;
  view.data = values.data();
  return view;
}

// Adds row-major values to the elements of a view.
void add(const TensorView& to, const std::vector<double>& values, bool replace) {
  std::array<std::int64_t, kMaxRank> shape{1, 1, 1, 1};
  std::array<std::int64_t, kMaxRank> strides{};
  for (std::size_t i = 0; i < static_cast<std::size_t>(to.rank); ++i) {
    const std::size_t at = static_cast<std::size_t>(kMaxRank - to.rank) + i;
    shape[at] = to.shape[i];
    strides[at] = to.strides[i];
  }
  auto* data = static_cast<double*>(to.data);
  std::size_t next = 0;
  for (std::int64_t x = 0; x < shape[0]; ++x) {
    for (std::int64_t y = 0; y < shape[1]; ++y) {
      for (std::int64_t z = 0; z < shape[2]; ++z) {
        double* row = data + x * strides[0] + y * strides[1] + z * strides[2];
        for (std::int64_t w = 0; w < shape[3]; ++w, ++next) {
          double& element = row[w * strides[3]];
          element = replace ? values[next] : element + values[next];
        }
      }
    }
  }
}

// The whole Problem's result, with what tokens outside every sequence have: LSE -inf and zeros.
oracle::Result empty_result(const Problem& problem) {
  oracle::Result result;
  for (const TensorSpec& spec : tensors_of(problem)) {
    std::int64_t elements = 1;
    for (int i = 0; i < spec.rank; ++i) elements *= spec.shape[static_cast<std::size_t>(i)];
    const auto count = static_cast<std::size_t>(elements);
    if (spec.view == &Arguments::o) result.o.resize(count);
    if (spec.view == &Arguments::lse) {
      result.lse.resize(count, -std::numeric_limits<double>::infinity());
    }
    if (spec.role != Role::output) continue;
    if (spec.view == &Arguments::grad_q) result.grad_q.resize(count);
    if (spec.view == &Arguments::grad_k) result.grad_k.resize(count);
    if (spec.view == &Arguments::grad_v) result.grad_v.resize(count);
    if (spec.view == &Arguments::grad_bias) result.grad_bias.resize(count);
    if (spec.view == &Arguments::grad_sink) result.grad_sink.resize(count);
    if (spec.view == &Arguments::grad_alibi_slopes) result.grad_alibi_slopes.resize(count);
  }
  return result;
}

// Puts the result of a slice where it belongs. What several slices share is summed.
void place(const Problem& problem, const Slice& slice, const oracle::Result& from,
           oracle::Result& to) {
  add(slice.query_side(view_of(problem, &Arguments::o, to.o)), from.o, true);
  add(slice.lse(view_of(problem, &Arguments::lse, to.lse)), from.lse, true);
  if (problem.kind == Kind::forward) return;
  add(slice.query_side(view_of(problem, &Arguments::grad_q, to.grad_q)), from.grad_q, true);
  add(slice.key_side(view_of(problem, &Arguments::grad_k, to.grad_k)), from.grad_k, false);
  add(slice.key_side(view_of(problem, &Arguments::grad_v, to.grad_v)), from.grad_v, false);
  if (problem.bias.grad) {
    add(slice.bias(view_of(problem, &Arguments::grad_bias, to.grad_bias)), from.grad_bias, false);
  }
  if (problem.sink_grad) {
    add(slice.heads(view_of(problem, &Arguments::grad_sink, to.grad_sink)), from.grad_sink, false);
  }
  if (problem.alibi_grad) {
    add(slice.slopes(view_of(problem, &Arguments::grad_alibi_slopes, to.grad_alibi_slopes)),
        from.grad_alibi_slopes, false);
  }
}

using Terms = oracle::Terms;

// The terms of slices that share elements add up; otherwise each element has its own.
void merge(const Terms::Sum& from, bool shared, Terms::Sum& to) {
  to.max = shared ? to.max + from.max : std::max(to.max, from.max);
  const double root = std::sqrt(to.squares) + std::sqrt(from.squares);
  to.squares = shared ? root * root : to.squares + from.squares;
}

void merge(const Terms& from, bool shared_bias, bool shared_slopes, bool shared_sink, Terms& to) {
  merge(from.o, false, to.o);
  merge(from.lse, false, to.lse);
  merge(from.grad_q, false, to.grad_q);
  merge(from.grad_k, false, to.grad_k);  // pages that several sequences use count once
  merge(from.grad_v, false, to.grad_v);
  merge(from.grad_bias, shared_bias, to.grad_bias);
  merge(from.grad_sink, shared_sink, to.grad_sink);
  merge(from.grad_alibi_slopes, shared_slopes, to.grad_alibi_slopes);
}

// The whole Problem's terms from those of its slices, [B, Hkv].
Terms merge(const Problem& problem, const std::vector<Terms>& slices) {
  Terms all;
  const auto hkv = static_cast<std::size_t>(problem.hkv);
  for (std::size_t head = 0; head < hkv; ++head) {
    Terms of_head;
    for (std::size_t n = head; n < slices.size(); n += hkv) {
      merge(slices[n], problem.bias.broadcast_b, problem.alibi == PerHead::head, true, of_head);
    }
    merge(of_head, problem.bias.broadcast_h, false, false, all);
  }
  return all;
}

}  // namespace

double reference_steps(const Problem& problem, bool with_plain) {
  const double products = problem.kind == Kind::forward ? 1 : 2.5;
  return static_cast<double>(problem.b) * static_cast<double>(problem.hq) *
         static_cast<double>(problem.sq) * static_cast<double>(problem.sk) *
         static_cast<double>(problem.d + problem.dv) * products * (with_plain ? 2 : 1);
}

Expected<Reference> reference(const Problem& given, const Arguments& arguments, bool with_plain,
                              int threads) {
  Problem problem = given;
  if (problem.lse == LseLayout::none) problem.lse = LseLayout::plain;  // the oracle always gives it
  Reference all;
  all.exact = empty_result(problem);
  if (with_plain) all.plain = empty_result(problem);
  const std::int64_t slices = problem.b * problem.hkv;
  if (slices == 0) return all;
  Progress progress("checking against the oracle", slices * (with_plain ? 2 : 1));
  std::vector<Terms> terms(static_cast<std::size_t>(slices));
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  Status failure;
  const auto work = [&] {
    for (std::int64_t i = next++; i < slices; i = next++) {
      const Slice slice = make_slice(problem, arguments, i / problem.hkv, i % problem.hkv);
      SliceCall call;
      fill(slice, arguments, call);
      for (int pass = 0; pass < (with_plain ? 2 : 1); ++pass) {
        const auto result =
            oracle::run(call.problem, call.arguments,
                        pass == 0 ? oracle::Rounding::exact : oracle::Rounding::plain);
        {
          const std::lock_guard lock(mutex);
          if (!result.ok()) failure = result.status();
          if (!failure.ok()) return;
          place(problem, slice, *result, pass == 0 ? all.exact : all.plain);
          if (pass == 0) terms[static_cast<std::size_t>(i)] = result->terms;
        }
        progress.advance();
      }
    }
  };
  const std::int64_t wanted = threads > 0 ? threads : usable_cores();
  std::vector<std::thread> pool;
  for (std::int64_t t = 1; t < std::min(wanted, slices); ++t) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();
  if (!failure.ok()) return failure;
  all.exact.terms = merge(problem, terms);
  return all;
}

}  // namespace attune::cli
