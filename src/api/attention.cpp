// From views to a Problem. What contradicts itself is left to check(), which names it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <attune/arguments.hpp>
#include <attune/attention.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "api/plan_cache.h"
#include "problem/strides.h"

namespace attune {
namespace {

Status refuse(std::string message) { return {Code::invalid_argument, std::move(message)}; }

struct Call {
  Problem problem;
  Arguments arguments;
};

// Contiguous strides become zeros, and unused ones what they would be if contiguous, so that equal
// problems are equal values.
Problem::Strides canonical(const TensorView& view) {
  const Extents row_major = contiguous_strides(view.shape, view.rank);
  if (same_strides(view.shape, view.strides, row_major, view.rank)) return {};
  Problem::Strides strides = view.strides;
  for (std::size_t axis = 0; axis < strides.size(); ++axis) {
    if (view.shape[axis] <= 1) strides[axis] = row_major[axis];
  }
  return strides;
}

Status take_bias(const TensorView& view, Problem& p) {
  if (view.empty()) return {};
  if (view.rank != 4) {
    return refuse(
        fmt::format("bias has {} dimensions; it takes 4, [B, Hq, Sq, Sk] with 1 in place "
                    "of each broadcast one",
                    view.rank));
  }
  p.bias.kind = view.dtype == DType::boolean ? BiasKind::boolean : BiasKind::additive;
  p.bias.dtype = view.dtype;
  // A dimension of 1 in a problem of 1 broadcasts nothing.
  p.bias.broadcast_b = view.shape[0] == 1 && p.b != 1;
  p.bias.broadcast_h = view.shape[1] == 1 && p.hq != 1;
  p.bias.broadcast_q = view.shape[2] == 1 && p.sq != 1;
  p.bias.broadcast_k = view.shape[3] == 1 && p.sk != 1;
  return {};
}

Status take_alibi(const TensorView& view, Problem& p) {
  if (view.empty()) return {};
  if (view.rank != 1 && view.rank != 2) {
    return refuse(
        fmt::format("alibi_slopes has {} dimensions; it takes 1 ([Hq]) or 2 ([B, Hq])", view.rank));
  }
  p.alibi = view.rank == 1 ? PerHead::head : PerHead::batch_head;
  return {};
}

// Whether a tensor of indices has the rank that its extents are about to be read from.
Status check_indices(const char* name, const TensorView& view, int rank, const char* takes) {
  const bool readable = view.rank == rank && view.shape[0] >= (rank == 1 ? 1 : 0);
  if (view.empty() || readable) return {};
  return refuse(fmt::format("{} is {}; it takes {}", name, to_string(view), takes));
}

Status take_queries(const TensorView& q, const AttentionOptions& options, Problem& p) {
  p.packed_q = !options.cu_seqlens_q.empty();
  if (!p.packed_q) {
    if (options.max_seqlen_q && *options.max_seqlen_q != q.shape[1]) {
      return refuse(
          fmt::format("max_seqlen_q = {}, but q has Sq = {} and is not packed (there is "
                      "no cu_seqlens_q)",
                      *options.max_seqlen_q, q.shape[1]));
    }
    p.b = q.shape[0];
    p.sq = q.shape[1];
    return {};
  }
  if (!options.max_seqlen_q) {
    return refuse("max_seqlen_q is missing: with cu_seqlens_q, say how long the longest is");
  }
  p.b = options.cu_seqlens_q.shape[0] - 1;
  p.total_q = q.shape[1];
  p.sq = *options.max_seqlen_q;
  return {};
}

Status take_keys(const TensorView& k, const AttentionOptions& options, Call& call) {
  Problem& p = call.problem;
  const bool paged = !options.page_table.empty();
  p.packed_k = !options.cu_seqlens_k.empty();
  p.sk = k.shape[1];
  if (p.packed_k) {
    if (!options.max_seqlen_k) {
      return refuse("max_seqlen_k is missing: with cu_seqlens_k, say how long the longest is");
    }
    p.total_k = k.shape[1];
    p.sk = *options.max_seqlen_k;
  }
  if (paged) {
    p.pages = k.shape[0];
    p.page_size = k.shape[1];
    if (p.page_size <= 0) {
      return refuse(fmt::format("k has pages of {} keys; a page holds at least 1", p.page_size));
    }
    TensorView& table = call.arguments.page_table;
    std::int64_t reached = 0;
    if (__builtin_mul_overflow(table.shape[1], p.page_size, &reached)) {
      return refuse(fmt::format("page_table has {} columns of {} keys, past 2^63", table.shape[1],
                                p.page_size));
    }
    p.sk = options.max_seqlen_k.value_or(reached);
    // Without the columns that no sequence can reach, the table has the shape of the Problem.
    const std::int64_t columns = p.sk / p.page_size + (p.sk % p.page_size > 0 ? 1 : 0);
    table.shape[1] = std::min(table.shape[1], columns);
  }
  if (!p.packed_k && !paged && options.max_seqlen_k && *options.max_seqlen_k != p.sk) {
    return refuse(
        fmt::format("max_seqlen_k = {}, but k has Sk = {} and is neither packed nor paged",
                    *options.max_seqlen_k, p.sk));
  }
  return {};
}

void take_options(const AttentionOptions& options, Call& call) {
  Problem& p = call.problem;
  p.device = options.device;
  p.scale = options.scale;
  p.descale = !options.q_scale.empty() || !options.k_scale.empty() || !options.v_scale.empty();
  p.softcap = options.softcap;
  p.mask = options.mask;
  p.sink = !options.sink.empty();
  p.dropout = options.dropout;
  // A program that turns dropout off to evaluate keeps its other options.
  if (options.dropout != 0) p.dropout_stream = options.dropout_stream;
  p.key_lengths = !options.key_lengths.empty();
  p.lse = options.lse.empty() ? LseLayout::none : options.lse_layout;
  p.deterministic = options.deterministic;

  Arguments& a = call.arguments;
  a.q_scale = options.q_scale;
  a.k_scale = options.k_scale;
  a.v_scale = options.v_scale;
  a.bias = options.bias;
  a.alibi_slopes = options.alibi_slopes;
  a.sink = options.sink;
  a.key_lengths = options.key_lengths;
  a.cu_seqlens_q = options.cu_seqlens_q;
  a.cu_seqlens_k = options.cu_seqlens_k;
  a.page_table = options.page_table;
  a.dropout_seed = options.dropout_seed;
  a.dropout_offset = options.dropout_offset;
  a.dropout_state = options.dropout_state;
  a.stream = options.stream;
  a.lse = options.lse;
}

// Into a Call without anything: two kilobytes that are better not moved about.
Status build(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& o,
             const AttentionOptions& options, Call& call) {
  for (const auto& [name, view] : {std::pair{"q", &q}, {"k", &k}, {"v", &v}, {"o", &o}}) {
    if (view->empty()) return refuse(fmt::format("{} is missing", name));
    if (view->rank == 4) continue;
    return refuse(fmt::format("{} has {} dimensions; it takes 4, [B, S, H, D]", name, view->rank));
  }
  take_options(options, call);
  call.arguments.q = q;
  call.arguments.k = k;
  call.arguments.v = v;
  call.arguments.o = o;

  for (const Status& status : {
           check_indices("cu_seqlens_q", options.cu_seqlens_q, 1, "i32[B + 1]"),
           check_indices("cu_seqlens_k", options.cu_seqlens_k, 1, "i32[B + 1]"),
           check_indices("page_table", options.page_table, 2, "i32[B, columns]"),
       }) {
    if (!status.ok()) return status;
  }

  Problem& p = call.problem;
  p.dtype = q.dtype;
  p.hq = q.shape[2];
  p.hkv = k.shape[2];
  p.d = q.shape[3];
  p.dv = v.shape[3];
  if (Status status = take_queries(q, options, p); !status.ok()) return status;
  if (Status status = take_keys(k, options, call); !status.ok()) return status;
  if (Status status = take_bias(options.bias, p); !status.ok()) return status;
  if (Status status = take_alibi(options.alibi_slopes, p); !status.ok()) return status;
  p.q_strides = canonical(q);
  p.k_strides = canonical(k);
  p.v_strides = canonical(v);
  p.o_strides = canonical(o);
  return {};
}

// The largest power of two up to 16 that all of q, k, v, o and their gradients start at a multiple of:
// what kernels can make use of, and no more, so that equal calls find one plan. The gradients' rows
// count as well, for their strides are not in the Problem.
std::int64_t alignment_of(const Arguments& arguments) {
  std::uintptr_t addresses = kMostRowAlignment;
  for (const TensorView* view : {&arguments.q, &arguments.k, &arguments.v, &arguments.o}) {
    if (view->elements() > 0) addresses |= reinterpret_cast<std::uintptr_t>(view->data);
  }
  for (const TensorView* view :
       {&arguments.grad_o, &arguments.grad_q, &arguments.grad_k, &arguments.grad_v}) {
    if (view->elements() == 0) continue;
    addresses |= reinterpret_cast<std::uintptr_t>(view->data);
    addresses |= static_cast<std::uintptr_t>(row_alignment(*view));
  }
  return static_cast<std::int64_t>(addresses & (~addresses + 1));
}

// What is known of the tensors beside their shapes, and matters to CUDA kernels alone.
void promise(const Arguments& arguments, Problem& p) {
  if (p.device != Device::cuda) return;
  p.alignment = alignment_of(arguments);
  p.bias.aligned = p.bias.kind == BiasKind::additive && bias_is_aligned(arguments.bias);
}

void ask_for_gradients(const WantedGradients& wanted, Problem& p) {
  p.kind = Kind::backward;
  p.lse_grad = wanted.lse;
  p.bias.grad = wanted.bias;
  p.sink_grad = wanted.sink;
  p.alibi_grad = wanted.alibi_slopes;
}

Status run(Call& call, const AttentionOptions& options) {
  promise(call.arguments, call.problem);
  std::shared_ptr<const Plan> plan = kept_plan(call.problem, options.threads, options.device_index);
  if (plan == nullptr) {
    // Before the plan, so that shapes that disagree are named, and nothing is planned for them. A plan
    // that is there checks them itself.
    if (Status status = check(call.problem, call.arguments); !status.ok()) return status;
    Expected<std::shared_ptr<const Plan>> made =
        cached_plan(call.problem, options.threads, options.device_index);
    if (!made.ok()) return made.status();
    plan = std::move(made).value();
  }
  const std::size_t bytes = plan->workspace_bytes();
  if (!options.allocate_workspace || bytes == 0) return plan->run(call.arguments);
  void* workspace = options.allocate_workspace(bytes);
  if (workspace == nullptr) {
    return {Code::out_of_memory, fmt::format("{}: allocate_workspace gave no memory for {} bytes",
                                             plan->kernel(), bytes)};
  }
  return plan->run(call.arguments, {static_cast<std::byte*>(workspace), bytes});
}

// No exception leaves the API.
template <typename F>
Status fenced(const F& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return {Code::out_of_memory, "attention: there is not enough memory"};
  } catch (const std::exception& error) {
    return {Code::internal, error.what()};
  }
}

}  // namespace

Status attention(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& o,
                 const AttentionOptions& options) {
  return fenced([&]() -> Status {
    Call call;
    if (Status status = build(q, k, v, o, options, call); !status.ok()) return status;
    return run(call, options);
  });
}

Expected<Problem> problem_of(const TensorView& q, const TensorView& k, const TensorView& v,
                             const TensorView& o, const AttentionOptions& options,
                             const std::optional<WantedGradients>& backward) {
  Problem problem;
  const Status status = fenced([&]() -> Status {
    TensorView result = o;
    if (o.empty() && q.rank == 4) {
      result = TensorView::contiguous(nullptr, q.dtype,
                                      {q.shape[0], q.shape[1], q.shape[2], v.shape[3]});
    }
    Call call;
    if (Status built = build(q, k, v, result, options, call); !built.ok()) return built;
    problem = call.problem;
    promise(call.arguments, problem);
    if (backward) {
      ask_for_gradients(*backward, problem);
      if (problem.lse == LseLayout::none) problem.lse = options.lse_layout;
    }
    return validate(problem);
  });
  return status.ok() ? Expected<Problem>(problem) : status;
}

Status attention_backward(const BackwardTensors& tensors, const AttentionOptions& options) {
  return fenced([&]() -> Status {
    if (options.lse.empty()) {
      return refuse("lse is missing: the backward pass reads the LSE that the forward pass wrote");
    }
    Call call;
    if (Status status = build(tensors.q, tensors.k, tensors.v, tensors.o, options, call);
        !status.ok()) {
      return status;
    }
    Problem& p = call.problem;
    ask_for_gradients({.lse = !tensors.grad_lse.empty(),
                       .bias = !tensors.grad_bias.empty(),
                       .sink = !tensors.grad_sink.empty(),
                       .alibi_slopes = !tensors.grad_alibi_slopes.empty()},
                      p);
    Arguments& a = call.arguments;
    a.grad_o = tensors.grad_o;
    a.grad_lse = tensors.grad_lse;
    a.grad_q = tensors.grad_q;
    a.grad_k = tensors.grad_k;
    a.grad_v = tensors.grad_v;
    a.grad_bias = tensors.grad_bias;
    a.grad_sink = tensors.grad_sink;
    a.grad_alibi_slopes = tensors.grad_alibi_slopes;
    return run(call, options);
  });
}

}  // namespace attune
