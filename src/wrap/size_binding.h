// Where a call says how large each size is.
#pragma once

#include <cstddef>
#include <vector>

#include "wrap/program.h"

namespace attune::wrap {

struct SizeSource {
  enum class From : std::uint8_t { nowhere, scalar, extent, stride };
  From from = From::nowhere;
  std::size_t index = 0;  // of the scalar or the tensor
  std::size_t axis = 0;
};

// One for each of program.sizes: a scalar of its name, else the first extent that is this size and
// nothing else, else the first such stride; inputs before outputs.
[[nodiscard]] std::vector<SizeSource> bind_sizes(const Program& program);

}  // namespace attune::wrap
