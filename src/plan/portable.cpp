#include "plan/portable.h"

#include <utility>

namespace attune {

namespace {

template <typename Plan>
Expected<PortablePlan> either(Expected<Plan> plan) {
  if (!plan.ok()) return plan.status();
  return PortablePlan(std::move(plan).value());
}

}  // namespace

Expected<PortablePlan> plan_portable(const Problem& problem, const KernelSpec& spec,
                                     const DeviceFacts& device) {
  return problem.kind == Kind::forward ? either(plan_forward_portable(problem, spec, device))
                                       : either(plan_backward_portable(problem, spec, device));
}

std::string describe(const PortablePlan& plan) {
  return std::visit([](const auto& one) { return describe(one); }, plan);
}

}  // namespace attune
