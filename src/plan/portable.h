// A plan of the portable family, of either direction.
#pragma once

#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <string>
#include <variant>

#include "host/device_facts.h"
#include "plan/backward_portable.h"
#include "plan/forward_portable.h"
#include "spec/kernel_spec.h"

namespace attune {

using PortablePlan = std::variant<ForwardPlan, BackwardPlan>;

// Precondition: the row serves the Problem on this device.
[[nodiscard]] Expected<PortablePlan> plan_portable(const Problem& problem, const KernelSpec& spec,
                                                   const DeviceFacts& device);

[[nodiscard]] std::string describe(const PortablePlan& plan);

}  // namespace attune
