#include <fmt/format.h>

#include <algorithm>
#include <attune/plan.hpp>
#include <cstdint>
#include <new>
#include <utility>

#include "cpu/backend.h"
#include "cpu/thread_pool.h"
#include "select/select.h"

namespace attune {

namespace {

constexpr std::size_t kAlignment = 64;

std::byte* align(std::byte* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return p + (kAlignment - address % kAlignment) % kAlignment;
}

Problem normalised(Problem problem) {
  if (problem.device == Device::automatic) problem.device = Device::cpu;
  return problem;
}

std::string describe(const std::vector<Candidate>& list, const Candidate* chosen) {
  std::string text = "candidates, in order:\n";
  for (const Candidate& candidate : list) {
    text += fmt::format("  {:<26}", id_of(candidate.spec));
    if (&candidate == chosen) {
      text += "chosen";
    } else if (candidate.reasons.empty()) {
      text += "would serve; a better one comes first";
    } else {
      text += "refused: ";
      for (std::size_t i = 0; i < candidate.reasons.size(); ++i) {
        text += (i == 0 ? "" : "; ") + candidate.reasons[i];
      }
    }
    if (!candidate.note.empty()) text += " (" + candidate.note + ")";
    text += '\n';
  }
  return text;
}

const Candidate* first_supported(const std::vector<Candidate>& list) {
  const auto it =
      std::find_if(list.begin(), list.end(), [](const Candidate& c) { return c.reasons.empty(); });
  return it == list.end() ? nullptr : &*it;
}

Status check_options(const PlanOptions& options) {
  constexpr int kMostThreads = 4096;
  if (options.threads < 0 || options.threads > kMostThreads) {
    return {Code::invalid_argument, fmt::format("threads = {} is not in 0 .. {} (0: every core)",
                                                options.threads, kMostThreads)};
  }
  if (!options.kernel.empty() && !spec_from(options.kernel)) {
    return {Code::invalid_argument,
            fmt::format("no kernel is called '{}'; `attune list` shows them all", options.kernel)};
  }
  return {};
}

}  // namespace

struct Plan::Impl {
  Problem problem;
  std::string kernel;
  std::string explanation;
  int threads = 1;
  Executor executor;
  std::unique_ptr<cpu::Execution> execution;
};

Plan::Plan(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;
Plan::~Plan() = default;

const Problem& Plan::problem() const { return impl_->problem; }
std::string_view Plan::kernel() const { return impl_->kernel; }
int Plan::threads() const { return impl_->threads; }
std::size_t Plan::workspace_bytes() const {
  return impl_->execution->workspace_bytes() + kAlignment - 1;
}

std::string Plan::explain() const {
  return fmt::format("{}\n{}kernel {}\n{}", print(impl_->problem), impl_->explanation,
                     impl_->kernel, impl_->execution->describe());
}

Status Plan::run(const Arguments& arguments, std::span<std::byte> workspace) const {
  if (workspace.size() < workspace_bytes()) {
    return {Code::invalid_argument,
            fmt::format("{}: the workspace has {} bytes, the plan needs {}", impl_->kernel,
                        workspace.size(), workspace_bytes())};
  }
  if (Status status = check(impl_->problem, arguments); !status.ok()) return status;
  impl_->execution->run(arguments, align(workspace.data()), impl_->executor);
  return {};
}

Status Plan::run(const Arguments& arguments) const {
  const std::size_t bytes = workspace_bytes();
  const std::unique_ptr<std::byte[]> workspace(new (std::nothrow) std::byte[bytes]);
  if (workspace == nullptr) {
    return {Code::out_of_memory,
            fmt::format("{}: {} bytes of workspace are not to be had", impl_->kernel, bytes)};
  }
  return run(arguments, {workspace.get(), bytes});
}

Expected<Plan> make_plan(const Problem& problem, const PlanOptions& options) {
  if (Status status = validate(problem); !status.ok()) return status;
  if (Status status = check_options(options); !status.ok()) return status;
  auto impl = std::make_unique<Plan::Impl>();
  impl->problem = normalised(problem);
  const std::vector<Candidate> list = candidates(impl->problem, options.kernel);
  const Candidate* chosen = first_supported(list);
  impl->explanation = describe(list, chosen);
  if (chosen == nullptr) {
    return Status{Code::unsupported, fmt::format("no kernel serves this problem: {}\n{}",
                                                 print(impl->problem), impl->explanation)};
  }
  impl->kernel = id_of(chosen->spec);
  impl->threads = options.threads > 0 ? options.threads : cpu::usable_cores();
  impl->executor = options.executor ? options.executor : Executor{cpu::run_on_pool};
  impl->execution = impl->problem.kind == Kind::forward
                        ? cpu::prepare_forward(impl->problem, chosen->spec, impl->threads)
                        : cpu::prepare_backward(impl->problem, chosen->spec, impl->threads);
  return Plan(std::move(impl));
}

Expected<std::string> explain(const Problem& problem, const PlanOptions& options) {
  Expected<Plan> plan = make_plan(problem, options);
  if (plan.ok()) return plan->explain();
  if (plan.status().code() == Code::unsupported) return plan.status().message();
  return plan.status();
}

}  // namespace attune
