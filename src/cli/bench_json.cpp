#include "cli/bench_json.h"

namespace attune::cli {

nlohmann::json problem_fields(const Problem& problem) {
  return {{"problem", print(problem)},
          {"direction", problem.kind == Kind::forward ? "forward" : "backward"},
          {"dtype", to_string(problem.dtype)},
          {"mask", problem.mask.causal ? "causal" : "full"},
          {"b", problem.b},
          {"h", problem.hq},
          {"s", problem.sq},
          {"d", problem.d}};
}

}  // namespace attune::cli
