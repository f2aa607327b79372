#include "tests/support/on_gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <attune/plan.hpp>
#include <functional>
#include <optional>
#include <utility>

#include "launch/device.h"
#include "launch/device_tensor.h"
#include "problem/strides.h"
#include "select/select.h"
#include "tests/support/flags.h"
#include "tests/support/random.h"

namespace attune::testing {
namespace {

struct Gpu {
  int device = -1;
  std::optional<DeviceFacts> facts;
  std::string why_not;
};

Gpu& the_gpu() {
  static Gpu gpu;
  return gpu;
}

// After such an error every later call fails as well, and would say nothing about its own kernel.
void remember_break(const Status& status, const std::string& where) {
  if (status.code() != Code::device_error || !the_gpu().why_not.empty()) return;
  the_gpu().why_not =
      fmt::format("an earlier kernel broke the GPU's context: {}: {}", where, status.message());
}

}  // namespace

void use_gpu(int device) {
  Gpu& gpu = the_gpu();
  gpu.device = device;
  Expected<DeviceFacts> facts = cuda::facts_of_device(device);
  if (facts.ok()) {
    gpu.facts = std::move(facts).value();
  } else {
    gpu.why_not = facts.status().message();
  }
}

bool on_gpu() { return the_gpu().device >= 0; }
int gpu() { return the_gpu().device; }
std::string no_gpu() { return the_gpu().why_not; }
const DeviceFacts& gpu_facts() { return *the_gpu().facts; }

std::vector<KernelSpec> gpu_kernels() {
  std::vector<KernelSpec> found;
  if (!no_gpu().empty()) return found;
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family == Family::cpu) continue;
    const ArchRange range = arch_range(spec);
    if (gpu_facts().arch >= range.begin && gpu_facts().arch < range.end) found.push_back(spec);
  }
  return found;
}

Problem for_gpu(Problem problem, std::string_view salt, const Arguments& arguments) {
  Random random(std::hash<std::string_view>{}(salt));
  problem.device = Device::cuda;
  const auto size = static_cast<std::int64_t>(size_of(problem.dtype));
  problem.alignment = random.pick<std::int64_t>({16, 16, 16, 16, 8, size});
  for (const TensorView* view :
       {&arguments.grad_o, &arguments.grad_q, &arguments.grad_k, &arguments.grad_v}) {
    problem.alignment = std::min(problem.alignment, row_alignment(*view));
  }
  return problem;
}

std::vector<KernelSpec> serving_gpu_kernels(const Problem& problem, std::string_view salt) {
  std::vector<KernelSpec> serving;
  for (const Candidate& candidate : candidates(problem, {}, &gpu_facts())) {
    if (candidate.reasons.empty()) serving.push_back(candidate.spec);
  }
  if (flags().every_kernel || serving.size() <= 2) return serving;
  Random random(std::hash<std::string_view>{}(salt) ^ 0x5EEDu);
  const auto other = random.integer(1, static_cast<std::int64_t>(serving.size()) - 1);
  return {serving.front(), serving[static_cast<std::size_t>(other)]};
}

Status run_on_gpu(const Problem& problem, const KernelSpec& kernel, const Arguments& host) {
  const auto run = [&]() -> Status {
    PlanOptions options;
    options.kernel = id_of(kernel);
    options.device_index = gpu();
    const Expected<Plan> plan = make_plan(problem, options);
    if (!plan.ok()) return plan.status();
    const std::size_t misalignment =
        problem.alignment >= 16 ? 0 : static_cast<std::size_t>(problem.alignment);
    const auto copy = cuda::DeviceArguments::copy_of(problem, host, gpu(), misalignment);
    if (!copy.ok()) return copy.status();
    // As large as asked for and not a byte more; garbage at first.
    const auto workspace = cuda::DeviceBuffer::allocate(gpu(), plan->workspace_bytes());
    if (!workspace.ok()) return workspace.status();
    if (Status status = workspace->fill(0xFF); !status.ok()) return status;
    Status status = plan->run(copy->arguments(), {workspace->data(), workspace->size()});
    if (!status.ok()) return status;
    if (status = copy->fetch_all(); !status.ok()) return status;
    return copy->check_guards();
  };
  Status status = run();
  remember_break(status, id_of(kernel) + ", " + print(problem));
  return status;
}

}  // namespace attune::testing
