// Planning of the portable forward kernel: grid, memory, and the parameters that a run completes.
// Pure: it needs no driver.
#pragma once

#include <attune/params.h>

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <string>

#include "host/device_facts.h"
#include "spec/kernel_spec.h"

namespace attune {

// Blocks of a launch. A tile is number x + y * grid.x; the last ones may be past the last tile.
struct Grid {
  std::int64_t x = 0;  // at most 2^31 - 1
  std::int64_t y = 1;  // at most 65535
  friend bool operator==(const Grid&, const Grid&) = default;
};

// Refuses more tiles than a grid has blocks.
[[nodiscard]] Expected<Grid> fold(std::int64_t tiles);

struct PortablePlan {
  kernel::PortableSpec spec;
  Grid grid;
  int threads = 0;
  int shared_bytes = 0;
  std::size_t workspace_bytes = 0;  // on the device, 256-byte aligned
  bool nothing = false;             // no output has an element: there is nothing to launch
  kernel::ForwardParams params{};   // all that the Problem decides
};

// Precondition: the row serves the Problem on this device.
[[nodiscard]] Expected<PortablePlan> plan_forward_portable(const Problem& problem,
                                                           const KernelSpec& spec,
                                                           const DeviceFacts& device);

// The parameters of one run. Allocates nothing. Precondition: check_views(problem, arguments) is
// ok; `workspace` is device memory of plan.workspace_bytes.
[[nodiscard]] kernel::ForwardParams complete(const PortablePlan& plan, const Problem& problem,
                                             const Arguments& arguments, void* workspace);

// One fact a line, for explain().
[[nodiscard]] std::string describe(const PortablePlan& plan);

}  // namespace attune
