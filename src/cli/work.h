// How much a Problem computes, and how long a Plan takes for it.
#pragma once

#include <attune/arguments.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <vector>

#include "cli/progress.h"

namespace attune::cli {

// (query, key) pairs over all sequences and query heads that the mask and the lengths leave.
// Precondition: check(problem, arguments) is ok. A bias that masks out still counts.
[[nodiscard]] double attended_pairs(const Problem& problem, const Arguments& arguments);

// Operations of the matrix products alone, the usual count: per pair 2 (D + Dv) forward and
// 2 (3 D + 2 Dv) backward, which is 2.5 times as much where D = Dv.
[[nodiscard]] double operations(const Problem& problem, double pairs);

// The Problem whose o and LSE a backward one reads, and its part of the arguments.
[[nodiscard]] Problem forward_of(Problem problem);
[[nodiscard]] Arguments forward_of(Arguments arguments);

struct Timing {
  std::vector<double> seconds;  // of each timed run
  bool first_only = false;      // the untimed first run took so long that it is the measurement
};

// Runs the plan once, and then `repeat` times against the clock; with repeat = 0, as often as it
// takes to be sure within about a second: 5 times, or not again when the first run took longer. For
// a plan on a GPU, `arguments` still lie in host memory: they are copied there, the GPU's clock is
// read, and the results are copied back.
[[nodiscard]] Expected<Timing> run_timed(const Plan& plan, const Arguments& arguments, int repeat);

}  // namespace attune::cli
