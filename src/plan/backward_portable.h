// Planning of the portable backward kernels: their launches, the workspace between them, and the
// parameters that a run completes. Pure: it needs no driver.
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

// As in BackwardParams.
struct BackwardWorkspace {
  WorkspacePiece rows, grad_q_sum, key_sum, alibi_parts, sink_parts, bias_sums, turns;
};

struct BackwardPlan {
  kernel::PortableSpec spec;
  // rows, keys, bias when its gradient has an element, finish; none when no output has one.
  std::vector<KernelLaunch> launches;
  std::size_t workspace_bytes = 0;  // on the device, 256-byte aligned
  kernel::BackwardParams params{};  // all that the Problem decides
  BackwardWorkspace workspace;
};

// Precondition: the row serves the Problem on this device.
[[nodiscard]] Expected<BackwardPlan> plan_backward_portable(const Problem& problem,
                                                            const KernelSpec& spec,
                                                            const DeviceFacts& device);

// Whether the kernels can load dO and store dQ, dK and dV, whose strides no Problem states: aligned
// rows of the table ask for rows of neighbours that start at multiples of 16 bytes. Allocates nothing
// but the refusal.
[[nodiscard]] Status check_gradients(const BackwardPlan& plan, const Problem& problem,
                                     const Arguments& arguments);

// The parameters of one run. Allocates nothing. Precondition: check_arguments(problem, arguments) and
// check_gradients() are ok; `workspace` is device memory of plan.workspace_bytes.
[[nodiscard]] kernel::BackwardParams complete(const BackwardPlan& plan, const Problem& problem,
                                              const Arguments& arguments, void* workspace);

// One fact a line, for explain().
[[nodiscard]] std::string describe(const BackwardPlan& plan);

}  // namespace attune
