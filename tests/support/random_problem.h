// A seed -> a Problem, so that a failure is one number.
#pragma once

#include <attune/problem.hpp>
#include <cstdint>
#include <optional>

#include "tests/support/tensor_memory.h"

namespace attune::testing {

// A valid Problem: every feature of the contract, alone and together, at sizes that the oracle
// computes in a fraction of a second. `kind` in place of the seed's own.
[[nodiscard]] Problem random_problem(std::uint64_t seed, std::optional<Kind> kind = {});

// The same, cut down to what the fast rows of a GPU serve: rows of whole 16 bytes, and of bias, dropout
// and the general features at most one, as the seed says.
[[nodiscard]] Problem plainer(Problem problem, std::uint64_t seed);

// Shapes of a Problem's tensors, as Arguments lists them.
[[nodiscard]] Shape shape_of_q(const Problem& problem);
[[nodiscard]] Shape shape_of_k(const Problem& problem);
[[nodiscard]] Shape shape_of_v(const Problem& problem);
[[nodiscard]] Shape shape_of_o(const Problem& problem);
[[nodiscard]] Shape shape_of_bias(const Problem& problem);
[[nodiscard]] Shape shape_of_slopes(const Problem& problem);
[[nodiscard]] Shape shape_of_lse(const Problem& problem);  // plain when problem.lse is none

// Strides as a Problem states them: all zero means row-major.
[[nodiscard]] Shape strides_from(const Problem::Strides& strides);

}  // namespace attune::testing
