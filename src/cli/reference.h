// The oracle over a whole Problem, computed slice by slice on every core.
#pragma once

#include <attune/arguments.hpp>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>

namespace attune::cli {

struct Reference {
  oracle::Result exact;
  oracle::Result plain;  // empty vectors unless asked for
};

// What oracle::run computes, cut into one slice a sequence and KV head: heads and sequences don't
// see each other, so the slices run on `threads` threads (0: every usable core) and the progress
// bar has something to count. Precondition: check(problem, arguments) is ok and problem.lse is not
// padded32.
[[nodiscard]] Expected<Reference> reference(const Problem& problem, const Arguments& arguments,
                                            bool with_plain, int threads);

// Scalar steps that this takes, for saying beforehand that it will take long.
[[nodiscard]] double reference_steps(const Problem& problem, bool with_plain);

}  // namespace attune::cli
