#include "plan/forward_tiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "plan/portable_params.h"

namespace attune {

namespace {

// (sequence, head) pairs whose keys and values fill half of the L2 cache. Heads that share keys count
// once.
int heads_a_slice(const Problem& problem, const DeviceFacts& device) {
  const auto size = static_cast<std::int64_t>(size_of(problem.dtype));
  const std::int64_t keys =
      fill_half_the_cache(problem.sk * (problem.d + problem.dv) * size, device);
  const std::int64_t shared = problem.hq / problem.hkv;
  const std::int64_t all = std::max<std::int64_t>(1, problem.b) * problem.hq;
  const std::int64_t most = std::min<std::int64_t>(all, std::numeric_limits<int>::max());
  return static_cast<int>(keys > most / shared ? most : keys * shared);
}

}  // namespace

Expected<Grid> lay_tiles(const Problem& problem, int queries, const DeviceFacts& device,
                         kernel::ForwardParams& p) {
  const std::int64_t rows = std::max(p.sq, p.lse.padded);
  // Even without rows: tokens of no sequence are written too.
  p.query_blocks = static_cast<int>(std::max<std::int64_t>(1, ceil_div(rows, queries)));
  const auto tiles = count_tiles({p.query_blocks, p.hq, p.b});
  if (!tiles.ok()) return tiles.status();
  p.tiles = *tiles;
  p.heads_a_slice = heads_a_slice(problem, device);
  return fold(p.tiles);
}

std::string describe_tiles(const std::vector<KernelLaunch>& launches, int queries, int keys,
                           const kernel::ForwardParams& p, const WorkspacePiece& workspace) {
  if (launches.empty()) return "  grid       none: no result has an element\n";
  const KernelLaunch& launch = launches.front();
  const auto plural = [](std::int64_t count) { return count == 1 ? "" : "s"; };
  return fmt::format(
      "  tile       {} queries x {} keys, {} threads, {} bytes of shared memory\n"
      "  grid       {} tiles as {} x {}: {} query block{} of {} head{} of {} sequence{}; {} "
      "heads share the L2\n"
      "  workspace  {} bytes{}{}\n",
      queries, keys, launch.threads, launch.shared_bytes, p.tiles, launch.grid.x, launch.grid.y,
      p.query_blocks, plural(p.query_blocks), p.hq, plural(p.hq), p.b, plural(p.b),
      p.heads_a_slice, workspace.bytes, workspace.bytes > 0 ? ": " : "", workspace.name);
}

}  // namespace attune
