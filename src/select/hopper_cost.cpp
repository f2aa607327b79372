#include "select/hopper_cost.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace attune {

namespace {

// Blocks of keys that so many queries from `row` on attend to. In floating point, which offsets and windows of
// any size do not overflow.
double blocks_of(const Problem& p, std::int64_t row, int queries, int block_keys) {
  const Mask& mask = p.mask;
  const auto keys = static_cast<double>(p.sk);
  const double diagonal =
      static_cast<double>(mask.offset) +
      (mask.diagonal == Diagonal::bottom_right ? static_cast<double>(p.sk - p.sq) : 0.0);
  const auto first_row = static_cast<double>(row);
  const auto last_row = static_cast<double>(std::min<std::int64_t>(row + queries, p.sq) - 1);
  double begin = 0, end = keys;
  if (mask.left >= 0) begin = first_row + diagonal - static_cast<double>(mask.left);
  if (mask.right >= 0) end = last_row + diagonal + static_cast<double>(mask.right) + 1;
  if (mask.causal) end = std::min(end, last_row + diagonal + 1);
  begin = std::clamp(begin, 0.0, keys);
  end = std::clamp(end, 0.0, keys);
  if (begin >= end) return 1;
  return std::ceil(end / block_keys) - std::floor(begin / block_keys);
}

// How many clusters run at once. The multiprocessors of a cluster are neighbours: of 132, clusters of 4 and 8 leave
// an eighth idle (measured: 32 of 4, or 16 of 8, take twice as long as half as many).
int clusters_at_once(int sms, int splits) {
  return std::max(1, (splits > 2 ? sms - sms / 8 : sms) / splits);
}

// What a launch of mates takes longer by, to begin and to end: with two tiles a multiprocessor they are 1 to 2% slower
// than others, whose tiles take longer.
constexpr double kCyclesToMeet = 5000;

double cycles_with(const kernel::HopperSpec& spec, const Problem& problem, int sms,
                   const ClusterShape& shape) {
  const TileCycles cycles = tile_cycles(spec);
  if (cycles.block == 0) return 0;
  const int queries = spec.queries / shape.heads;
  const std::int64_t tiles = (problem.sq + queries - 1) / queries;
  if (tiles == 0) return 0;
  constexpr std::int64_t kMostLooked = 64;
  const std::int64_t looked = std::min(tiles, kMostLooked);
  double sum = 0, most = 0;  // of a tile's blocks of keys
  for (std::int64_t i = 0; i < looked; ++i) {
    const std::int64_t tile = looked == 1 ? 0 : i * (tiles - 1) / (looked - 1);
    const double blocks = blocks_of(problem, tile * queries, queries, spec.keys);
    const double one = std::ceil(blocks / shape.splits);
    sum += one;
    most = std::max(most, one);
  }
  const std::int64_t heads = problem.hq / shape.heads;
  const double all = static_cast<double>(tiles) * static_cast<double>(problem.b * heads);
  const int at_once = spec.mates ? std::max(2, sms / 2 * 2) : clusters_at_once(sms, shape.splits);
  const double begin = spec.mates ? kCyclesToMeet : 0;
  const double mean = sum / static_cast<double>(looked);
  // Tiles that are alike come in whole rounds, others fill the gaps.
  if (mean == most) return begin + std::ceil(all / at_once) * (cycles.ends + most * cycles.block);
  const int block = problem.mask.left < 0 ? cycles.causal_block : cycles.block;
  return begin + std::max(cycles.ends + most * block, all * (cycles.ends + mean * block) / at_once);
}

struct Estimate {
  ClusterShape shape;
  double cycles;
};

// Of shapes that take as long, one with the most heads, whose keys then are read once, and the fewest splits.
Estimate best_shape(const kernel::HopperSpec& spec, const Problem& problem, int sms) {
  constexpr int kMostHeads = 64;
  const std::int64_t group = problem.hq / problem.hkv;
  int heads = 1;
  while (heads < kMostHeads && group % (2 * heads) == 0) heads *= 2;
  Estimate best{{1, heads}, cycles_with(spec, problem, sms, {1, heads})};
  for (; heads > 0; heads /= 2) {
    for (int splits = 1; splits <= std::min(sms, kernel::kMostSplits); splits *= 2) {
      const double cycles = cycles_with(spec, problem, sms, {splits, heads});
      if (cycles < best.cycles) best = {{splits, heads}, cycles};
    }
  }
  return best;
}

}  // namespace

double estimated_cycles(const kernel::HopperSpec& spec, const Problem& problem, int sms) {
  if (!spec.split) return cycles_with(spec, problem, sms, {});
  constexpr double kClearly = 1.1;
  return best_shape(spec, problem, sms).cycles * kClearly;
}

ClusterShape cluster_shape(const kernel::HopperSpec& spec, const Problem& problem, int sms) {
  return best_shape(spec, problem, sms).shape;
}

double times_of_portable(const kernel::HopperSpec& spec) {
  // Of head dims up to 64, up to 128, and above. That of a bias above 128, and of ALiBi and softcap, was not measured:
  // as without.
  struct Times {
    double small, middle, large;
  };
  constexpr Times kPlain{1.6, 1.9, 2.2}, kBias{1.8, 2.5, 2.2};
  constexpr Times kDropout{1.2, 1.3, 1.7}, kBytes{1.5, 1.9, 2.4};
  const Times times = spec.bias ? kBias : !spec.dropout ? kPlain : spec.bytes ? kBytes : kDropout;
  if (spec.head_dim <= 64) return times.small;
  return spec.head_dim <= 128 ? times.middle : times.large;
}

}  // namespace attune
