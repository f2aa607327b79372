// A kernel step with everything put in: the same expressions over the program's sizes alone.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wrap/program.h"

namespace attune::wrap {

// Something that has to hold for a configuration to be right. `holds` is over the program's sizes; of a
// pointer, its address has to be a multiple of `divisor`.
struct Condition {
  std::string text;  // "n % 16 == 0"
  Expression holds;
  std::optional<std::size_t> pointer;  // a parameter of the kernel
  std::int64_t divisor = 1;
};

// The names of a kernel's expressions are its constants, its whole-number parameters and the program's
// sizes, the first that there is.
[[nodiscard]] Expression resolve(const Program& program, const KernelStep& step,
                                 const Configuration& configuration, const Expression& expression);

[[nodiscard]] std::array<Expression, 3> grid_of(const Program& program, const KernelStep& step,
                                                const Configuration& configuration);

// Those that no range proves already. One that can't hold at all is 0.
[[nodiscard]] std::vector<Condition> conditions_of(const Program& program, const KernelStep& step,
                                                   const Configuration& configuration);

// Bytes of scratch memory that a launch needs, whichever configuration and file are taken; 0: none.
[[nodiscard]] Expression global_scratch_bytes(const Program& program, const KernelStep& step);
[[nodiscard]] Expression profile_scratch_bytes(const Program& program, const KernelStep& step);

// A number that every address of the tensor is a multiple of.
[[nodiscard]] std::int64_t alignment_of(const Program& program, std::size_t tensor);

}  // namespace attune::wrap
