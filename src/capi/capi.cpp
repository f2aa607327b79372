// The C ABI: each function converts, calls its C++ counterpart and reports.
#include <attune/attune.h>
#include <fmt/format.h>

#include <algorithm>
#include <attune/arguments.hpp>
#include <attune/attention.hpp>
#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "capi/convert.h"
#include "capi/error.h"

// The texts stand beside the plan because its own are not null-terminated.
struct attune_plan {
  attune::Plan plan;
  std::string kernel;
  std::string problem;
};

namespace {

using attune::Code;
using attune::Expected;
using attune::Status;
using attune::capi::fenced;
using attune::capi::take;

Status null(const char* name) { return {Code::invalid_argument, fmt::format("{} is NULL", name)}; }

// For free(), as any language can call it.
char* copy_text(const std::string& text) {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) throw std::bad_alloc();
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

Expected<attune::PlanOptions> plan_options(const attune_plan_options* given) {
  if (given == nullptr) return attune::PlanOptions{};
  const auto options = take(given, "options");
  if (!options.ok()) return options.status();
  return attune::capi::to_plan_options(*options);
}

Expected<attune::AttentionOptions> attention_options(const attune_attention_options* given) {
  if (given == nullptr) return attune::AttentionOptions{};
  const auto options = take(given, "options");
  if (!options.ok()) return options.status();
  return attune::capi::to_options(*options);
}

// A result of the oracle and the room that the caller has for it.
struct Delivery {
  const char* name;
  const std::vector<double>& from;
  const attune_doubles& to;
};

// All or nothing: first every size, then the copies.
Status deliver(const attune::oracle::Result& result, const attune_oracle_result& room) {
  const Delivery deliveries[] = {
      {"o", result.o, room.o},
      {"lse", result.lse, room.lse},
      {"grad_q", result.grad_q, room.grad_q},
      {"grad_k", result.grad_k, room.grad_k},
      {"grad_v", result.grad_v, room.grad_v},
      {"grad_bias", result.grad_bias, room.grad_bias},
      {"grad_sink", result.grad_sink, room.grad_sink},
      {"grad_alibi_slopes", result.grad_alibi_slopes, room.grad_alibi_slopes},
  };
  for (const Delivery& d : deliveries) {
    if (d.to.data == nullptr || d.to.count == d.from.size()) continue;
    return {Code::invalid_argument,
            fmt::format("result.{} has room for {} numbers, but there are {}", d.name, d.to.count,
                        d.from.size())};
  }
  for (const Delivery& d : deliveries) {
    if (d.to.data != nullptr) std::copy(d.from.begin(), d.from.end(), d.to.data);
  }
  return {};
}

}  // namespace

extern "C" {

attune_tensor attune_tensor_contiguous(const void* data, int32_t dtype, int32_t rank,
                                       const int64_t* shape) {
  attune_tensor tensor = {};
  if (rank < 0 || rank > ATTUNE_MAX_RANK || (rank > 0 && shape == nullptr)) return tensor;
  attune::TensorView view;
  std::copy_n(shape, rank, view.shape.begin());
  view.strides = attune::contiguous_strides(view.shape, rank);
  tensor.data = const_cast<void*>(data);
  tensor.dtype = dtype;
  tensor.rank = rank;
  std::copy(view.shape.begin(), view.shape.end(), tensor.shape);
  std::copy(view.strides.begin(), view.strides.end(), tensor.strides);
  return tensor;
}

const char* attune_version(void) { return ATTUNE_VERSION; }

void attune_free(char* text) { std::free(text); }

attune_status attune_plan_create(const char* problem_text, const attune_plan_options* options,
                                 attune_plan** out) {
  return fenced([&]() -> Status {
    if (out == nullptr) return null("out");
    *out = nullptr;
    if (problem_text == nullptr) return null("problem_text");
    const Expected<attune::PlanOptions> chosen = plan_options(options);
    if (!chosen.ok()) return chosen.status();
    const Expected<attune::Problem> problem = attune::parse(problem_text);
    if (!problem.ok()) return problem.status();
    Expected<attune::Plan> plan = attune::make_plan(*problem, *chosen);
    if (!plan.ok()) return plan.status();
    std::string kernel(plan->kernel());
    std::string text = attune::print(plan->problem());
    *out = new attune_plan{std::move(plan).value(), std::move(kernel), std::move(text)};
    return {};
  });
}

void attune_plan_destroy(attune_plan* plan) { delete plan; }

size_t attune_plan_workspace_bytes(const attune_plan* plan) {
  return plan == nullptr ? 0 : plan->plan.workspace_bytes();
}

const char* attune_plan_kernel(const attune_plan* plan) {
  return plan == nullptr ? "" : plan->kernel.c_str();
}

const char* attune_plan_problem(const attune_plan* plan) {
  return plan == nullptr ? "" : plan->problem.c_str();
}

char* attune_plan_explain(const attune_plan* plan) {
  char* text = nullptr;
  (void)fenced([&]() -> Status {
    if (plan == nullptr) return null("plan");
    text = copy_text(plan->plan.explain());
    return {};
  });
  return text;
}

int32_t attune_plan_device_index(const attune_plan* plan) {
  return plan == nullptr ? -1 : plan->plan.device_index();
}

attune_status attune_plan_prepare(const attune_plan* plan) {
  return fenced([&]() -> Status { return plan == nullptr ? null("plan") : plan->plan.prepare(); });
}

attune_status attune_plan_run(const attune_plan* plan, const attune_arguments* arguments,
                              void* workspace, size_t workspace_bytes) {
  return fenced([&]() -> Status {
    if (plan == nullptr) return null("plan");
    const auto given = take(arguments, "arguments");
    if (!given.ok()) return given.status();
    const attune::Arguments args = attune::capi::to_arguments(*given);
    if (workspace == nullptr) return plan->plan.run(args);
    return plan->plan.run(args, {static_cast<std::byte*>(workspace), workspace_bytes});
  });
}

attune_status attune_explain(const char* problem_text, const attune_plan_options* options,
                             char** out) {
  return fenced([&]() -> Status {
    if (out == nullptr) return null("out");
    *out = nullptr;
    if (problem_text == nullptr) return null("problem_text");
    const Expected<attune::PlanOptions> chosen = plan_options(options);
    if (!chosen.ok()) return chosen.status();
    const Expected<attune::Problem> problem = attune::parse(problem_text);
    if (!problem.ok()) return problem.status();
    const Expected<std::string> text = attune::explain(*problem, *chosen);
    if (!text.ok()) return text.status();
    *out = copy_text(*text);
    return {};
  });
}

attune_status attune_attention(const attune_tensor* q, const attune_tensor* k,
                               const attune_tensor* v, const attune_tensor* o,
                               const attune_attention_options* options) {
  return fenced([&]() -> Status {
    if (q == nullptr) return null("q");
    if (k == nullptr) return null("k");
    if (v == nullptr) return null("v");
    if (o == nullptr) return null("o");
    const Expected<attune::AttentionOptions> chosen = attention_options(options);
    if (!chosen.ok()) return chosen.status();
    using attune::capi::to_view;
    return attune::attention(to_view(*q), to_view(*k), to_view(*v), to_view(*o), *chosen);
  });
}

attune_status attune_attention_backward(const attune_backward_tensors* tensors,
                                        const attune_attention_options* options) {
  return fenced([&]() -> Status {
    const auto given = take(tensors, "tensors");
    if (!given.ok()) return given.status();
    const Expected<attune::AttentionOptions> chosen = attention_options(options);
    if (!chosen.ok()) return chosen.status();
    return attune::attention_backward(attune::capi::to_backward(*given), *chosen);
  });
}

attune_status attune_oracle_run(const char* problem_text, const attune_arguments* arguments,
                                int32_t rounding, const attune_oracle_result* result) {
  return fenced([&]() -> Status {
    if (problem_text == nullptr) return null("problem_text");
    const auto given = take(arguments, "arguments");
    if (!given.ok()) return given.status();
    const auto room = take(result, "result");
    if (!room.ok()) return room.status();
    if (rounding != ATTUNE_ROUNDING_EXACT && rounding != ATTUNE_ROUNDING_PLAIN) {
      return {Code::invalid_argument,
              fmt::format("rounding = {} is none of ATTUNE_ROUNDING_...", rounding)};
    }
    const Expected<attune::Problem> problem = attune::parse(problem_text);
    if (!problem.ok()) return problem.status();
    const auto computed =
        attune::oracle::run(*problem, attune::capi::to_arguments(*given),
                            rounding == ATTUNE_ROUNDING_PLAIN ? attune::oracle::Rounding::plain
                                                              : attune::oracle::Rounding::exact);
    if (!computed.ok()) return computed.status();
    return deliver(*computed, *room);
  });
}

}  // extern "C"
