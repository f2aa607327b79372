#include "plan/gpu.h"

#include <utility>

namespace attune {

namespace {

template <typename Plan>
Expected<GpuPlan> either(Expected<Plan> plan) {
  if (!plan.ok()) return plan.status();
  return GpuPlan(std::move(plan).value());
}

}  // namespace

Expected<GpuPlan> plan_on_gpu(const Problem& problem, const KernelSpec& spec,
                              const DeviceFacts& device) {
  if (spec.family == Family::hopper) return either(plan_forward_hopper(problem, spec, device));
  return problem.kind == Kind::forward ? either(plan_forward_portable(problem, spec, device))
                                       : either(plan_backward_portable(problem, spec, device));
}

std::string describe(const GpuPlan& plan) {
  return std::visit([](const auto& one) { return describe(one); }, plan);
}

}  // namespace attune
