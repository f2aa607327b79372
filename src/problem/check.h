// The part of check() that a plan repeats at each run.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>

namespace attune {

// check() without the Problem's own rules. Precondition: the Problem is valid.
[[nodiscard]] Status check_arguments(const Problem& problem, const Arguments& arguments);

}  // namespace attune
