#include "tests/support/judge.h"

#include <fmt/format.h>

#include <attune/plan.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "host/isa.h"
#include "tests/support/device_under_test.h"
#include "tests/support/flags.h"
#include "tests/support/tensor_memory.h"

namespace attune::testing {
namespace {

bool allowed(Isa isa) {
  if (!missing_for(isa).empty()) return false;
  const std::optional<Isa> highest = isa_from(cpu_isa_variable());
  return !highest || isa <= *highest;
}

}  // namespace

std::vector<KernelSpec> available_kernels() {
  if (on_gpu()) return device_under_test().kernels();
  std::vector<KernelSpec> found;
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family == Family::cpu && allowed(spec.isa)) found.push_back(spec);
  }
  return found;
}

std::vector<KernelSpec> available_kernels(Kind kind, DType dtype) {
  std::vector<KernelSpec> found;
  for (const KernelSpec& spec : available_kernels()) {
    if (spec.kind == kind && spec.dtype == dtype) found.push_back(spec);
  }
  return found;
}

namespace {

// The whole table has a row for every Problem, but few for eighths.
bool must_be_served(const Problem& problem) {
  return device_under_test().has_whole_table() && problem.dtype != DType::f8e4m3;
}

}  // namespace

std::string skip_reason(Kind kind, DType dtype) {
  if (!available_kernels(kind, dtype).empty()) return {};
  if (on_gpu() && !no_gpu().empty()) return no_gpu();
  return "no kernel of this kind and dtype runs here";
}

std::string skip_reason(const Problem& problem, const Arguments& arguments) {
  if (!on_gpu()) return {};
  if (std::string none = skip_reason(problem.kind, problem.dtype); !none.empty()) return none;
  if (must_be_served(problem)) return {};
  const Problem on_device = for_gpu(problem, print(problem), arguments);
  if (!device_under_test().serving(on_device, "").empty()) return {};
  return "none of the rows here serves it, or it is too large for them";
}

bool serves(const KernelSpec& kernel, const Problem& problem, const Arguments& arguments) {
  if (!on_gpu()) return true;
  return device_under_test().serves(kernel, for_gpu(problem, "", arguments));
}

Status run_kernel(const Problem& problem, const KernelSpec& kernel, const Arguments& arguments,
                  int threads) {
  if (on_gpu()) {
    return device_under_test().run(
        problem.device == Device::cuda ? problem : for_gpu(problem, "", arguments), kernel,
        arguments);
  }
  const Expected<Plan> plan =
      make_plan(problem, {.threads = threads, .kernel = id_of(kernel), .executor = {}});
  if (!plan) return {plan.status().code(), "make_plan: " + plan.status().message()};
  // The workspace ends at a forbidden page too, and holds garbage at first.
  const auto bytes = static_cast<std::int64_t>(plan->workspace_bytes());
  const TensorMemory workspace(DType::u8, {bytes});
  return plan->run(
      arguments, {static_cast<std::byte*>(workspace.view().data), static_cast<std::size_t>(bytes)});
}

Expected<Reference> make_reference(const Problem& problem, Tensors& tensors) {
  Expected<oracle::Result> exact =
      oracle::run(problem, tensors.arguments(), oracle::Rounding::exact);
  if (!exact) return exact.status();
  // Plain backward starts from the o and LSE that the kernels are given.
  if (problem.kind == Kind::backward) tensors.set_forward(*exact);
  Expected<oracle::Result> plain =
      oracle::run(problem, tensors.arguments(), oracle::Rounding::plain);
  if (!plain) return plain.status();
  return Reference{std::move(*exact), std::move(*plain)};
}

std::string compare_tensor(std::string_view name, const TensorView& got,
                           std::vector<double> oracle::Result::*tensor,
                           const Reference& reference) {
  const std::size_t elements = (reference.exact.*tensor).size();
  if (static_cast<std::int64_t>(elements) != got.elements()) {
    return fmt::format("{}: the oracle has {} elements, the tensor {}", name, elements,
                       got.elements());
  }
  const oracle::Error error = oracle::compare(got, tensor, reference.exact, reference.plain);
  if (error.pass()) return {};
  return fmt::format(
      "{} {}: max {:.3g} (plain {:.3g}, floor {:.3g}, ratio {:.3g}), rms {:.3g} (plain {:.3g}, "
      "floor {:.3g}, ratio {:.3g}), {}worst {}",
      name, to_string(got), error.max, error.plain_max, error.floor, error.max_ratio, error.rms,
      error.plain_rms, error.rms_floor, error.rms_ratio,
      error.same_nonfinite ? "" : "NaN or infinity where the oracle has none or the reverse, ",
      error.first_bad);
}

std::string run_and_compare(const Problem& problem, Tensors& tensors, const Reference& reference,
                            const KernelSpec& kernel, int threads) {
  tensors.poison_outputs();
  const Status status = run_kernel(problem, kernel, tensors.arguments(), threads);
  if (!status.ok()) return "run: " + status.message();
  std::string wrong = tensors.damage();
  for (const Tensors::Output& output : tensors.outputs()) {
    const std::string found =
        compare_tensor(output.name, output.memory->view(), output.result, reference);
    if (found.empty()) continue;
    if (!wrong.empty()) wrong += "\n    ";
    wrong += found;
  }
  return wrong;
}

std::string judge_all(const Problem& given, Tensors& tensors, const Reference& reference,
                      int threads, std::string_view title) {
  std::string wrong;
  const Problem problem = on_gpu() ? for_gpu(given, title, tensors.arguments()) : given;
  const std::vector<KernelSpec> kernels = on_gpu() ? device_under_test().serving(problem, title)
                                                   : available_kernels(problem.kind, problem.dtype);
  if (kernels.empty()) {
    return on_gpu() && !must_be_served(problem) ? "" : "\n  no kernel serves it";
  }
  for (const KernelSpec& kernel : kernels) {
    const std::string id = id_of(kernel);
    set_current_case(fmt::format("{}, {} threads: {}", id, threads, title));
    const std::string found = run_and_compare(problem, tensors, reference, kernel, threads);
    if (found.empty()) continue;
    wrong += fmt::format(
        "\n  {}, {}\n    {}", id,
        on_gpu() ? fmt::format("align={}", problem.alignment) : fmt::format("{} threads", threads),
        found);
  }
  return wrong;
}

std::string judge_problem(const Problem& problem, Tensors& tensors, int threads) {
  const std::string text = print(problem);
  if (const Status status = validate(problem); !status.ok()) {
    return fmt::format("{}\n  validate: {}", text, status.message());
  }
  if (const Status status = check(problem, tensors.arguments()); !status.ok()) {
    return fmt::format("{}\n  check: {}", text, status.message());
  }
  const Expected<Reference> reference = make_reference(problem, tensors);
  if (!reference) return fmt::format("{}\n  oracle: {}", text, reference.status().message());
  const std::string wrong = judge_all(problem, tensors, *reference, threads, text);
  return wrong.empty() ? wrong : text + wrong;
}

std::string judge_problem(const Problem& problem, Distribution distribution, std::uint64_t seed,
                          int threads) {
  Tensors tensors(problem, distribution, seed);
  return judge_problem(problem, tensors, threads);
}

}  // namespace attune::testing
