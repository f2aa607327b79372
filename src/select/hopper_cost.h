// What a Hopper row's tile would take for a problem, to choose among tiles.
#pragma once

#include <attune/problem.hpp>

#include "spec/hopper_table.h"

namespace attune {

// Cycles, about, on `sms` multiprocessors, of which each takes tile after tile; comparable between rows of the
// same head dim alone. Packed and ragged sequences count as long as the longest. A split row counts for more than
// it would take: it is to be clearly ahead of the others.
[[nodiscard]] double estimated_cycles(const kernel::HopperSpec& spec, const Problem& problem,
                                      int sms);

// How a split row computes a problem: blocks of threads that share a tile's keys, and query heads of a group that
// share its rows.
struct ClusterShape {
  int splits = 1, heads = 1;
  friend bool operator==(const ClusterShape&, const ClusterShape&) = default;
};

// What takes the fewest cycles by the same estimate. Precondition: spec.split.
[[nodiscard]] ClusterShape cluster_shape(const kernel::HopperSpec& spec, const Problem& problem,
                                         int sms);

// How many times as long portable rows of the same features took as this one, on an H200, at 4,096 or 8,192 keys
// without a mask (docs/kernels/forward_hopper.md, forward_portable.md).
[[nodiscard]] double times_of_portable(const kernel::HopperSpec& spec);

}  // namespace attune
