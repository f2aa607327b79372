// Problem -> candidates in order, each supported or refused with every reason. Pure.
#pragma once

#include <attune/problem.hpp>
#include <string>
#include <vector>

#include "spec/kernel_spec.h"

namespace attune {

struct Candidate {
  KernelSpec spec;
  std::vector<std::string> reasons;  // why not; empty when it serves the Problem
  std::string note;                  // why it stands where it stands, if that needs saying
};

// All rows of the table that could be meant by the Problem's kind and dtype, in table order.
// `forced` is a kernel id; when not empty, every other row is refused because of it.
[[nodiscard]] std::vector<Candidate> candidates(const Problem& problem,
                                                std::string_view forced = {});

}  // namespace attune
