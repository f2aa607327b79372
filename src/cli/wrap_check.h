// `attune wrap --check`: the generated program against recorded inputs and outputs.
#pragma once

#include <string>

#include "wrap/program.h"

namespace attune::cli {

// Builds the package in `folder`, and runs it on each case of the recording: tensors `<case>/<name>`, or
// `<name>` where there is one case; scalars are tensors without dimensions. Returns the exit code.
// tolerance: the largest error as a part of the output's largest value; 0: two units in the last place of
// its dtype.
[[nodiscard]] int check_package(const wrap::Program& program, const std::string& folder,
                                const std::string& recording, bool cpu, double tolerance);

}  // namespace attune::cli
