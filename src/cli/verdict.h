// Results against the oracle, tensor by tensor, as a table or as JSON.
#pragma once

#include <attune/arguments.hpp>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace attune::cli {

struct Verdict {
  std::string tensor;  // "o", "lse", "grad_q" ...
  oracle::Error error;
};

// Runs the oracle and compares every result that `arguments` holds; for a backward Problem also o
// and the LSE, which its forward run made. Says on stderr when it will take long.
[[nodiscard]] Expected<std::vector<Verdict>> check_results(const Problem& problem,
                                                           const Arguments& arguments, int threads);

[[nodiscard]] bool all_pass(const std::vector<Verdict>& verdicts);
// The largest share of its limit that any tensor takes; above 1 is a failure.
[[nodiscard]] double worst_ratio(const std::vector<Verdict>& verdicts);

[[nodiscard]] std::string to_text(const std::vector<Verdict>& verdicts, DType dtype);
[[nodiscard]] nlohmann::json to_json(const std::vector<Verdict>& verdicts);

}  // namespace attune::cli
