#include "plan/forward_tiles.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan/forward_sizes.h"
#include "plan/portable_params.h"

namespace attune {

namespace {

int heads_a_slice(const Problem& problem, const DeviceFacts& device) {
  const auto size = static_cast<std::int64_t>(size_of(problem.dtype));
  return forward_heads_a_slice(problem.sk * (problem.d + problem.dv) * size,
                               problem.hq / problem.hkv,
                               std::max<std::int64_t>(1, problem.b) * problem.hq, device.l2_bytes);
}

}  // namespace

Expected<Grid> lay_tiles(const Problem& problem, int queries, const DeviceFacts& device,
                         kernel::ForwardParams& p) {
  const std::int64_t rows = std::max(p.sq, p.lse.padded);
  p.query_blocks = static_cast<int>(forward_query_blocks(rows, queries));
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
      p.query_blocks, plural(p.query_blocks), p.hq, plural(p.hq), p.b, plural(p.b), p.heads_a_slice,
      workspace.bytes, workspace.bytes > 0 ? ": " : "", workspace.name);
}

}  // namespace attune
