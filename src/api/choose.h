// Which kernel a Problem gets under given options, with the words for it: the first half of
// make_plan(), and all of explain().
#pragma once

#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <optional>
#include <string>
#include <vector>

#include "host/device_facts.h"
#include "select/select.h"

namespace attune {

struct Choice {
  Problem problem;                    // normalised
  std::vector<Candidate> candidates;  // in order
  std::optional<std::size_t> chosen;  // among them
  std::optional<DeviceFacts> device;  // device=cuda: the GPU, when there is one
  int device_index = -1;              // device=cuda: which of this machine's; -1 with options.arch
  Status no_device;                   // device=cuda: why there is no GPU

  [[nodiscard]] std::string describe() const;  // the device, the candidates and their reasons
  [[nodiscard]] Status refusal() const;        // precondition: nothing was chosen
};

// Fails for an invalid Problem and for options that make no sense.
[[nodiscard]] Expected<Choice> choose(const Problem& problem, const PlanOptions& options);

}  // namespace attune
