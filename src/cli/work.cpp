#include "cli/work.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

#include "io/tensor.h"
#include "problem/lengths.h"

namespace attune::cli {
namespace {

constexpr int kDefaultRepeat = 5;
constexpr double kPatience = 1.0;  // seconds

}  // namespace

double attended_pairs(const Problem& problem, const Arguments& arguments) {
  double pairs = 0;
  for (std::int64_t b = 0; b < problem.b; ++b) {
    const Sequence s = sequence(problem, arguments, b);
    for (std::int64_t i = 0; i < s.sq; ++i) {
      const Interval keys = attended(problem.mask, i, s.sq, s.sk);
      pairs += static_cast<double>(keys.hi - keys.lo);
    }
  }
  return pairs * static_cast<double>(problem.hq);
}

double operations(const Problem& problem, double pairs) {
  const auto d = static_cast<double>(problem.d);
  const auto dv = static_cast<double>(problem.dv);
  return pairs * 2 * (problem.kind == Kind::forward ? d + dv : 3 * d + 2 * dv);
}

Expected<Timing> run_timed(const Plan& plan, const Arguments& arguments, int repeat) {
  AlignedBytes workspace;
  try {
    workspace.resize(plan.workspace_bytes());
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "no memory for a workspace of " +
                                           std::to_string(plan.workspace_bytes()) + " bytes");
  }
  const int expected = repeat == 0 ? kDefaultRepeat : repeat;
  Progress progress(plan.problem().kind == Kind::forward ? "forward" : "backward", expected + 1);
  const auto once = [&]() -> Expected<double> {
    const auto start = std::chrono::steady_clock::now();
    if (Status status = plan.run(arguments, workspace); !status.ok()) return status;
    progress.advance();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  Timing timing;
  const Expected<double> first = once();
  if (!first.ok()) return first.status();
  if (repeat == 0 && *first > kPatience) {
    timing.seconds = {*first};
    timing.first_only = true;
    return timing;
  }
  for (int i = 0; i < expected; ++i) {
    const Expected<double> seconds = once();
    if (!seconds.ok()) return seconds.status();
    timing.seconds.push_back(*seconds);
  }
  return timing;
}

}  // namespace attune::cli
