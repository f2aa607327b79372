#include "select/hopper_cost.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace attune {

namespace {

// Blocks of keys that the rows of a tile from `row` on attend to. In floating point, which offsets and windows of
// any size do not overflow.
double blocks_of(const Problem& p, std::int64_t row, const kernel::HopperSpec& spec) {
  const Mask& mask = p.mask;
  const auto keys = static_cast<double>(p.sk);
  const double diagonal =
      static_cast<double>(mask.offset) +
      (mask.diagonal == Diagonal::bottom_right ? static_cast<double>(p.sk - p.sq) : 0.0);
  const auto first_row = static_cast<double>(row);
  const auto last_row = static_cast<double>(std::min<std::int64_t>(row + spec.queries, p.sq) - 1);
  double begin = 0, end = keys;
  if (mask.left >= 0) begin = first_row + diagonal - static_cast<double>(mask.left);
  if (mask.right >= 0) end = last_row + diagonal + static_cast<double>(mask.right) + 1;
  if (mask.causal) end = std::min(end, last_row + diagonal + 1);
  begin = std::clamp(begin, 0.0, keys);
  end = std::clamp(end, 0.0, keys);
  if (begin >= end) return 1;
  return std::ceil(end / spec.keys) - std::floor(begin / spec.keys);
}

}  // namespace

double estimated_cycles(const kernel::HopperSpec& spec, const Problem& problem, int sms) {
  const TileCycles cycles = tile_cycles(spec);
  if (cycles.block == 0) return 0;
  const std::int64_t tiles = (problem.sq + spec.queries - 1) / spec.queries;
  if (tiles == 0) return 0;
  constexpr std::int64_t kMostLooked = 64;
  const std::int64_t looked = std::min(tiles, kMostLooked);
  double sum = 0, longest = 0;
  for (std::int64_t i = 0; i < looked; ++i) {
    const std::int64_t tile = looked == 1 ? 0 : i * (tiles - 1) / (looked - 1);
    const double one = cycles.ends + blocks_of(problem, tile * spec.queries, spec) * cycles.block;
    sum += one;
    longest = std::max(longest, one);
  }
  const double all = static_cast<double>(tiles) * static_cast<double>(problem.b * problem.hq);
  const double mean = sum / static_cast<double>(looked);
  // Tiles that are alike come in whole rounds, others fill the gaps.
  if (mean == longest) return std::ceil(all / std::max(1, sms)) * longest;
  return std::max(longest, all * mean / std::max(1, sms));
}

}  // namespace attune
