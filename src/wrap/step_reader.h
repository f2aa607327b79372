// The steps of a program, which name what stands before them.
#pragma once

#include "wrap/program.h"
#include "wrap/reading.h"

namespace attune::wrap {

// Adds to program.steps, and to its tensors for steps that make a view.
void read_steps(Reading& reading, const JsonNode& steps, Program& program);

// An argument for something of which nothing is known but what is given.
[[nodiscard]] Argument read_argument(Reading& reading, const JsonNode& node, std::string_view path,
                                     const Program& program);

}  // namespace attune::wrap
