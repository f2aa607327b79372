// A plan for a GPU, of any family and either direction.
#pragma once

#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <string>
#include <variant>

#include "host/device_facts.h"
#include "plan/backward_portable.h"
#include "plan/forward_hopper.h"
#include "plan/forward_portable.h"
#include "spec/kernel_spec.h"

namespace attune {

using GpuPlan = std::variant<ForwardPlan, HopperPlan, BackwardPlan>;

// Precondition: the row serves the Problem on this device.
[[nodiscard]] Expected<GpuPlan> plan_on_gpu(const Problem& problem, const KernelSpec& spec,
                                            const DeviceFacts& device);

[[nodiscard]] std::string describe(const GpuPlan& plan);

}  // namespace attune
