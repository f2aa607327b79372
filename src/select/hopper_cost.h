// What a Hopper row's tile would take for a problem, to choose among tiles.
#pragma once

#include <attune/problem.hpp>

#include "spec/hopper_table.h"

namespace attune {

// Cycles, about, on `sms` multiprocessors, of which each takes tile after tile; comparable between rows of the
// same head dim alone. Packed and ragged sequences count as long as the longest.
[[nodiscard]] double estimated_cycles(const kernel::HopperSpec& spec, const Problem& problem,
                                      int sms);

}  // namespace attune
