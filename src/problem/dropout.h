// When an element of a dropout mask is kept, as one comparison of integers.
#pragma once

#include <cstdint>

namespace attune {

// The least Philox word x with float(x) * 2^-32 + 2^-33 > float(p): an element is kept iff its word
// is at least that. keep_none: not even the largest word is.
struct DropoutThreshold {
  std::uint32_t keep_from;
  bool keep_none;
};
[[nodiscard]] DropoutThreshold dropout_threshold(double probability);

}  // namespace attune
