// Ways to lay the elements of a tensor out in memory.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/tensor_memory.h"

namespace attune::testing {

enum class Layout : std::uint8_t {
  row_major,
  heads_first,      // [B, S, H, D] stored as [B, H, S, D]
  padded,           // gaps after every row, token and sequence
  last_stride_two,  // every other element
  fused,            // a slice of a wider row, as q, k and v of one projection
  broadcast_heads,  // every head is the same memory; inputs only
  broadcast_all,    // one element in all; inputs only
  negative,         // one or more axes walk backwards; inputs only
};

// Strides in elements for a [B, S, H, D] tensor.
[[nodiscard]] Shape strides_for(Layout layout, const Shape& shape, Random& random);

// A layout that an output may have, or any layout.
[[nodiscard]] Layout random_output_layout(Random& random);
[[nodiscard]] Layout random_input_layout(Random& random);

}  // namespace attune::testing
