// The plans of the last few Problems, so that one-call attention decides only once.
#pragma once

#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <memory>

namespace attune {

inline constexpr int kCachedPlans = 64;

// The plan for a Problem, from the cache or made now. The least recently used one gives way. Safe
// to call from several threads; two that miss at once may both make the plan. device_index as in
// PlanOptions.
[[nodiscard]] Expected<std::shared_ptr<const Plan>> cached_plan(const Problem& problem, int threads,
                                                                int device_index = -1);

// The same if it is in the cache, else null.
[[nodiscard]] std::shared_ptr<const Plan> kept_plan(const Problem& problem, int threads,
                                                    int device_index = -1);

// How many plans are kept, for tests.
[[nodiscard]] int cached_plan_count();

}  // namespace attune
