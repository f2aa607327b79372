#include "plan/grid.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace attune {

Expected<Grid> fold(std::int64_t tiles) {
  constexpr std::int64_t kMostX = 2147483647;
  constexpr std::int64_t kMostY = 65535;
  const std::int64_t y = std::max<std::int64_t>(1, ceil_div(tiles, kMostX));
  if (y > kMostY) {
    return Status{Code::unsupported,
                  fmt::format("the problem has {} tiles; a grid has at most {} * {} blocks", tiles,
                              kMostX, kMostY)};
  }
  return Grid{ceil_div(tiles, y), y};
}

Expected<std::int64_t> count_tiles(std::initializer_list<std::int64_t> factors) {
  std::int64_t tiles = 1;
  for (const std::int64_t factor : factors) {
    if (!__builtin_mul_overflow(tiles, factor, &tiles)) continue;
    return Status{Code::unsupported, fmt::format("the problem has {} tiles, more than 2^63",
                                                 fmt::join(factors, " * "))};
  }
  return tiles;
}

}  // namespace attune
