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

// Of the stream fa2: the largest byte whose element is kept, floor(255 (1 - p)) with 1 - p in float32.
[[nodiscard]] std::uint8_t largest_kept_byte(double probability);

}  // namespace attune
