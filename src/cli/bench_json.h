// What the rows of all benchmarks say about their Problem.
#pragma once

#include <attune/problem.hpp>
#include <nlohmann/json.hpp>

namespace attune::cli {

// The Problem's text, and what tables and plots sort by: direction, dtype, mask, b, h, s, d.
[[nodiscard]] nlohmann::json problem_fields(const Problem& problem);

}  // namespace attune::cli
