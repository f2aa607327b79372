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

// Rows of keys that the copy engine takes at once: a tile's, or as many as tiles and pages are multiples of.
[[nodiscard]] int box_keys(const kernel::HopperSpec& spec, std::int64_t page_size);

// Cycles of a multiprocessor: of a tile but for its blocks of keys, and of each of these; where later tiles have
// more keys, as under a causal mask, of some rows another. Fitted to what rows with the same head dim took in one run
// (docs/kernels/forward_hopper.md), so only they compare. Of a split row, with what a launch begins with among its
// ends. 0 where there is one tile.
struct TileCycles {
  int ends = 0, block = 0, causal_block = block;
};
[[nodiscard]] TileCycles tile_cycles(const kernel::HopperSpec& spec);

// "sm90a.bf16.d128.plain.q128k128", "...d192v128..." where dv has a smaller bound; "split" in place of "plain".
[[nodiscard]] std::string hopper_id(const kernel::HopperSpec& spec);

}  // namespace attune
