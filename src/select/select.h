// Problem -> candidates in order, each supported or refused with every reason. Pure.
#pragma once

#include <attune/problem.hpp>
#include <string>
#include <vector>

#include "host/device_facts.h"
#include "spec/kernel_spec.h"

namespace attune {

struct Candidate {
  KernelSpec spec;
  std::vector<std::string> reasons;  // why not; empty when it serves the Problem
  std::string note;                  // why it stands where it stands, if that needs saying
};

// All rows of the table that could be meant by the Problem's device, kind and dtype, in order of
// preference. `forced` is a kernel id; when not empty, every other row is refused because of it.
// `device` is the GPU of a Problem with device=cuda; without one, every GPU row is refused.
[[nodiscard]] std::vector<Candidate> candidates(const Problem& problem,
                                                std::string_view forced = {},
                                                const DeviceFacts* device = nullptr);

// Why a Problem has no candidate at all, and the nearest way around: the table has no row of its kind and
// dtype for its device. Precondition: candidates() of it is empty.
[[nodiscard]] std::string no_candidate(const Problem& problem, const DeviceFacts* device);

}  // namespace attune
