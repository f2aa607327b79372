// Rows of the Hopper family against the oracle.
#pragma once

#include <attune/problem.hpp>
#include <functional>
#include <string>
#include <vector>

#include "spec/kernel_spec.h"
#include "tests/support/tensors.h"

namespace attune::testing {

// Those of the table, or of what is emulated, that `takes` says.
std::vector<KernelSpec> hopper_rows(const std::function<bool(const kernel::HopperSpec&)>& takes);

// Empty, or what is wrong with what any of these rows makes of the problem, under `title`. Counts those that serve it.
std::string judge_rows(const std::vector<KernelSpec>& rows, const Problem& problem,
                       Tensors& tensors, const std::string& title, int* judged);

}  // namespace attune::testing
