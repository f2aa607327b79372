// The GPU that the emulator is: what was compiled for it, judged on host memory.
#pragma once

#include <string_view>

namespace attune::testing {

// From now on kernels are judged there. A Problem is left to a row only if what its blocks multiply,
// padding included, is at most `most_work`.
void use_emulator(double most_work);

// A line for each row that has run: how often, and how long it took.
void print_emulated_runs();

}  // namespace attune::testing
