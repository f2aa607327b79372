#include "tests/support/on_gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <attune/plan.hpp>
#include <functional>
#include <optional>
#include <utility>

#include "launch/device.h"
#include "launch/device_tensor.h"
#include "select/gpu.h"
#include "select/select.h"
#include "tests/support/flags.h"
#include "tests/support/random.h"

namespace attune::testing {
namespace {

class Gpu final : public DeviceUnderTest {
 public:
  explicit Gpu(int device) : device_(device) {
    Expected<DeviceFacts> facts = cuda::facts_of_device(device);
    if (facts.ok()) {
      facts_ = std::move(facts).value();
    } else {
      missing_ = facts.status().message();
    }
  }

  [[nodiscard]] int device() const { return device_; }
  [[nodiscard]] const DeviceFacts& facts() const { return *facts_; }

  [[nodiscard]] std::string missing() const override { return missing_; }
  [[nodiscard]] bool has_whole_table() const override { return true; }

  [[nodiscard]] std::vector<KernelSpec> kernels() const override {
    std::vector<KernelSpec> found;
    if (!missing_.empty()) return found;
    for (const KernelSpec& spec : kernel_table()) {
      if (spec.family == Family::cpu) continue;
      const ArchRange range = spec.archs;
      if (facts_->arch >= range.begin && facts_->arch < range.end) found.push_back(spec);
    }
    return found;
  }

  [[nodiscard]] bool serves(const KernelSpec& kernel, const Problem& problem) const override {
    return reasons_against_gpu_row(kernel, problem, *facts_).empty();
  }

  // The one that make_plan() takes, and another (or all of them, with --every-kernel).
  [[nodiscard]] std::vector<KernelSpec> serving(const Problem& problem,
                                                std::string_view salt) const override {
    std::vector<KernelSpec> serving;
    for (const Candidate& candidate : candidates(problem, {}, &*facts_)) {
      if (candidate.reasons.empty()) serving.push_back(candidate.spec);
    }
    if (flags().every_kernel || serving.size() <= 2) return serving;
    Random random(std::hash<std::string_view>{}(salt) ^ 0x5EEDu);
    const auto other = random.integer(1, static_cast<std::int64_t>(serving.size()) - 1);
    return {serving.front(), serving[static_cast<std::size_t>(other)]};
  }

  [[nodiscard]] Status run(const Problem& problem, const KernelSpec& kernel,
                           const Arguments& host) override {
    Status status = run_once(problem, kernel, host);
    // After such an error every later call fails as well, and would say nothing about its own kernel.
    if (status.code() == Code::device_error && missing_.empty()) {
      missing_ = fmt::format("an earlier kernel broke the GPU's context: {}, {}: {}", id_of(kernel),
                             print(problem), status.message());
    }
    return status;
  }

 private:
  [[nodiscard]] Status run_once(const Problem& problem, const KernelSpec& kernel,
                                const Arguments& host) const {
    PlanOptions options;
    options.kernel = id_of(kernel);
    options.device_index = device_;
    const Expected<Plan> plan = make_plan(problem, options);
    if (!plan.ok()) return plan.status();
    const std::size_t misalignment =
        problem.alignment >= 16 ? 0 : static_cast<std::size_t>(problem.alignment);
    const auto copy = cuda::DeviceArguments::copy_of(problem, host, device_, misalignment);
    if (!copy.ok()) return copy.status();
    // As large as asked for and not a byte more; garbage at first.
    const auto workspace = cuda::DeviceBuffer::allocate(device_, plan->workspace_bytes());
    if (!workspace.ok()) return workspace.status();
    if (Status status = workspace->fill(0xFF); !status.ok()) return status;
    Status status = plan->run(copy->arguments(), {workspace->data(), workspace->size()});
    if (!status.ok()) return status;
    if (status = copy->fetch_all(); !status.ok()) return status;
    return copy->check_guards();
  }

  int device_;
  std::optional<DeviceFacts> facts_;
  std::string missing_;
};

const Gpu* the_gpu = nullptr;

}  // namespace

void use_gpu(int device) {
  auto chosen = std::make_unique<Gpu>(device);
  the_gpu = chosen.get();
  judge_on(std::move(chosen));
}

int gpu() { return the_gpu->device(); }
const DeviceFacts& gpu_facts() { return the_gpu->facts(); }

}  // namespace attune::testing
