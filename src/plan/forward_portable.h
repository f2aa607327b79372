// Planning of the portable forward kernel: grid, memory, and the parameters that a run completes.
// Pure: it needs no driver.
#pragma once

#include <attune/params.h>

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "host/device_facts.h"
#include "plan/grid.h"
#include "plan/workspace.h"
#include "spec/kernel_spec.h"

namespace attune {

struct ForwardPlan {
  kernel::PortableSpec spec;
  std::vector<KernelLaunch> launches;  // in order; none when no output has an element
  std::size_t workspace_bytes = 0;     // on the device, 256-byte aligned
  kernel::ForwardParams params{};      // all that the Problem decides
  WorkspacePiece accumulator;
};

// Precondition: the row serves the Problem on this device.
[[nodiscard]] Expected<ForwardPlan> plan_forward_portable(const Problem& problem,
                                                          const KernelSpec& spec,
                                                          const DeviceFacts& device);

// The parameters of one run. Allocates nothing. Precondition: check_arguments(problem, arguments) is
// ok; `workspace` is device memory of plan.workspace_bytes.
[[nodiscard]] kernel::ForwardParams complete(const ForwardPlan& plan, const Problem& problem,
                                             const Arguments& arguments, void* workspace);

// One fact a line, for explain().
[[nodiscard]] std::string describe(const ForwardPlan& plan);

}  // namespace attune
