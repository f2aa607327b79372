// Blocks of a launch, and how many tiles fit them.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace attune {

// A tile is number x + y * grid.x; the last ones may be past the last tile.
struct Grid {
  std::int64_t x = 0;  // at most 2^31 - 1
  std::int64_t y = 1;  // at most 65535
  friend bool operator==(const Grid&, const Grid&) = default;
};

// Refuses more tiles than a grid has blocks.
[[nodiscard]] Expected<Grid> fold(std::int64_t tiles);

// The product. Refuses one past 2^63, naming the factors. Precondition: none is negative.
[[nodiscard]] Expected<std::int64_t> count_tiles(std::initializer_list<std::int64_t> factors);

[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return a / b + (a % b > 0 ? 1 : 0);
}

// One kernel of a plan, as it is launched.
struct KernelLaunch {
  std::size_t entry = 0;  // in entries_of(spec)
  Grid grid;
  int threads = 0;
  int shared_bytes = 0;
  int cluster = 0;  // blocks that run together, neighbours along x; 0: no clusters, not even of one
};

}  // namespace attune
