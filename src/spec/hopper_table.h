// The rows of the Hopper family: which configurations exist, and the tile of each.
#pragma once

#include <attune/spec/hopper.h>

#include <attune/tensor.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace attune {

// In order of preference: the smallest sufficient head dim, the fewest features. None for f32.
[[nodiscard]] std::vector<kernel::HopperSpec> hopper_forward_rows(DType dtype);

// How many keys a query attends to where this row's tile begins to be faster than the same with a smaller one.
[[nodiscard]] std::int64_t keys_from(const kernel::HopperSpec& spec);

// "sm90a.bf16.d128.plain.q128k128", "...d192v128..." where dv has a smaller bound.
[[nodiscard]] std::string hopper_id(const kernel::HopperSpec& spec);

}  // namespace attune
