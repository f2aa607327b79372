// What a row of the GPU families asks of a Problem and of a device.
#pragma once

#include <attune/problem.hpp>
#include <string>
#include <vector>

#include "host/device_facts.h"
#include "spec/kernel_spec.h"

namespace attune {

// Everything against this row, each reason with the nearest way around it; empty: it serves.
// Precondition: the Problem is valid and of the row's kind and dtype.
[[nodiscard]] std::vector<std::string> reasons_against_gpu_row(const KernelSpec& spec,
                                                               const Problem& problem,
                                                               const DeviceFacts& device);

}  // namespace attune
