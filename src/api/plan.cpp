#include <fmt/format.h>

#include <attune/plan.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "api/choose.h"
#include "cpu/backend.h"
#include "cpu/thread_pool.h"
#include "launch/execution.h"
#include "problem/check.h"
#include "spec/gpu_row.h"

namespace attune {

namespace {

constexpr std::size_t kHostAlignment = 64;
constexpr std::size_t kDeviceAlignment = 256;

// Address arithmetic only: the memory may be a device's.
std::byte* align(std::byte* p, std::size_t alignment) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return p + (alignment - address % alignment) % alignment;
}

// Memory of one run. Each thread keeps what its last one had, if that was little, for a next one that
// needs as much: the allocator's care for blocks of this size takes longer than a small kernel.
class OwnWorkspace {
 public:
  explicit OwnWorkspace(std::size_t bytes) : bytes_(bytes) {
    Kept& kept = this_threads();
    // Taken out meanwhile, for an executor may run another plan on this thread.
    if (kept.bytes == bytes) data_ = std::move(kept.data);
    if (data_ == nullptr) data_.reset(new (std::nothrow) std::byte[bytes]);
  }
  ~OwnWorkspace() {
    constexpr std::size_t kMostKept = std::size_t{256} << 10;
    if (data_ != nullptr && bytes_ <= kMostKept) this_threads() = {bytes_, std::move(data_)};
  }
  OwnWorkspace(const OwnWorkspace&) = delete;
  OwnWorkspace& operator=(const OwnWorkspace&) = delete;

  [[nodiscard]] std::byte* data() const { return data_.get(); }

 private:
  struct Kept {
    std::size_t bytes = 0;
    std::unique_ptr<std::byte[]> data;
  };
  static Kept& this_threads() {
    thread_local Kept kept;
    return kept;
  }

  std::size_t bytes_;
  std::unique_ptr<std::byte[]> data_;
};

}  // namespace

// Either `cpu` or `cuda` is there.
struct Plan::Impl {
  Choice choice;  // put into words when they are asked for, which takes longer than all else here
  std::string kernel;
  int threads = 0;
  Executor executor;
  std::unique_ptr<cpu::Execution> cpu;
  std::unique_ptr<cuda::Execution> cuda;

  [[nodiscard]] const Problem& problem() const { return choice.problem; }

  [[nodiscard]] std::string explain() const {
    return fmt::format("{}\n{}kernel {}\n{}", print(problem()), choice.describe(), kernel,
                       cpu ? cpu->describe() : cuda->describe());
  }
};

Plan::Plan(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;
Plan::~Plan() = default;

const Problem& Plan::problem() const { return impl_->problem(); }
std::string_view Plan::kernel() const { return impl_->kernel; }
int Plan::threads() const { return impl_->threads; }
int Plan::device_index() const { return impl_->cuda ? impl_->cuda->device() : -1; }

std::size_t Plan::workspace_bytes() const {
  if (impl_->cpu) return impl_->cpu->workspace_bytes() + kHostAlignment - 1;
  const std::size_t bytes = impl_->cuda->workspace_bytes();
  return bytes == 0 ? 0 : bytes + kDeviceAlignment - 1;
}

std::string Plan::explain() const { return impl_->explain(); }

Status Plan::prepare() const { return impl_->cuda ? impl_->cuda->prepare() : Status{}; }

Status Plan::run(const Arguments& arguments, std::span<std::byte> workspace) const {
  if (workspace.size() < workspace_bytes()) {
    return {Code::invalid_argument,
            fmt::format("{}: the workspace has {} bytes, the plan needs {}", impl_->kernel,
                        workspace.size(), workspace_bytes())};
  }
  if (Status status = check_arguments(impl_->problem(), arguments); !status.ok()) return status;
  if (impl_->cuda) return impl_->cuda->run(arguments, align(workspace.data(), kDeviceAlignment));
  impl_->cpu->run(arguments, align(workspace.data(), kHostAlignment), impl_->executor);
  return {};
}

Status Plan::run(const Arguments& arguments) const {
  if (impl_->cuda) {
    if (Status status = check_arguments(impl_->problem(), arguments); !status.ok()) return status;
    return impl_->cuda->run(arguments, nullptr);
  }
  const std::size_t bytes = workspace_bytes();
  const OwnWorkspace workspace(bytes);
  if (workspace.data() == nullptr) {
    return {Code::out_of_memory,
            fmt::format("{}: {} bytes of workspace are not to be had", impl_->kernel, bytes)};
  }
  return run(arguments, {workspace.data(), bytes});
}

namespace {

// What a choice of `choice.chosen` needs to run. Precondition: something was chosen.
Expected<std::unique_ptr<Plan::Impl>> decide(Choice taken, const PlanOptions& options) {
  auto impl = std::make_unique<Plan::Impl>();
  impl->choice = std::move(taken);
  const Choice& choice = impl->choice;
  const KernelSpec& spec = choice.candidates[*choice.chosen].spec;
  impl->kernel = id_of(spec);
  if (spec.family != Family::cpu) {
    auto execution =
        cuda::Execution::make(choice.problem, spec, choice.device_index, *choice.device);
    if (!execution.ok()) return execution.status();
    impl->cuda = std::move(execution).value();
    return impl;
  }
  impl->threads = options.threads > 0 ? options.threads : cpu::usable_cores();
  impl->executor = options.executor ? options.executor : Executor{cpu::run_on_pool};
  impl->cpu = choice.problem.kind == Kind::forward
                  ? cpu::prepare_forward(choice.problem, spec, impl->threads)
                  : cpu::prepare_backward(choice.problem, spec, impl->threads);
  return impl;
}

// As if there were a GPU of options.arch: all but the launch.
Status explain_elsewhere(const Choice& choice, const PlanOptions& options, Explanation& explained) {
  if (choice.problem.device != Device::cuda) {
    return {Code::invalid_argument,
            fmt::format("arch = {} names a GPU, but the problem is for the CPU: say device=cuda",
                        options.arch)};
  }
  if (!choice.chosen) {
    explained.text = choice.refusal().message();
    return {};
  }
  const KernelSpec& spec = choice.candidates[*choice.chosen].spec;
  const Expected<GpuPlan> plan = plan_on_gpu(choice.problem, spec, *choice.device);
  if (!plan.ok()) return plan.status();
  explained.text = fmt::format("{}\n{}kernel {}\n{}", print(choice.problem), choice.describe(),
                               id_of(spec), describe(*plan));
  return {};
}

}  // namespace

Expected<Plan> make_plan(const Problem& problem, const PlanOptions& options) {
  if (!options.arch.empty()) {
    return Status{
        Code::invalid_argument,
        fmt::format("arch = {} is for explain(): a plan is for a GPU that is here", options.arch)};
  }
  Expected<Choice> choice = choose(problem, options);
  if (!choice.ok()) return choice.status();
  if (!choice->chosen) return choice->refusal();
  auto impl = decide(std::move(choice).value(), options);
  if (!impl.ok()) return impl.status();
  return Plan(std::move(impl).value());
}

Expected<Explanation> explain_candidates(const Problem& problem, const PlanOptions& options) {
  Expected<Choice> choice = choose(problem, options);
  if (!choice.ok()) return choice.status();
  Explanation explained;
  explained.problem = choice->problem;
  if (choice->device) explained.device = choice->device->name;
  for (const Candidate& candidate : choice->candidates) {
    explained.candidates.push_back({id_of(candidate.spec), candidate.reasons, candidate.note});
  }
  if (choice->chosen) {
    const KernelSpec& spec = choice->candidates[*choice->chosen].spec;
    explained.kernel = id_of(spec);
    if (spec.family != Family::cpu) {
      const GpuRow row = gpu_row_of(spec);
      explained.tile_queries = row.queries;
      explained.tile_keys = row.keys;
    }
  }
  if (!options.arch.empty()) {
    if (Status status = explain_elsewhere(*choice, options, explained); !status.ok()) return status;
    return explained;
  }
  if (!choice->chosen) {
    explained.text = choice->refusal().message();
    return explained;
  }
  auto impl = decide(std::move(choice).value(), options);
  if (!impl.ok()) return impl.status();
  if ((*impl)->cpu) {
    const cpu::Tile tile = (*impl)->cpu->tile();
    explained.tile_queries = tile.queries;
    explained.tile_keys = tile.keys;
  }
  explained.text = (*impl)->explain();
  return explained;
}

Expected<std::string> explain(const Problem& problem, const PlanOptions& options) {
  const Expected<Explanation> explained = explain_candidates(problem, options);
  return explained.ok() ? Expected<std::string>(explained->text) : explained.status();
}

}  // namespace attune
