#include "plan/forward_portable.h"

#include <attune/kernel/forward_portable_layout.h>
#include <fmt/format.h>

#include <algorithm>

#include "plan/forward_sizes.h"
#include "plan/portable_params.h"
#include "source/translation_unit.h"

namespace attune {

namespace {

using kernel::ForwardParams;

int heads_a_slice(const Problem& problem, const DeviceFacts& device) {
  const auto size = static_cast<std::int64_t>(size_of(problem.dtype));
  return forward_heads_a_slice(problem.sk * (problem.d + problem.dv) * size,
                               problem.hq / problem.hkv,
                               std::max<std::int64_t>(1, problem.b) * problem.hq, device.l2_bytes);
}

}  // namespace

Expected<ForwardPlan> plan_forward_portable(const Problem& problem, const KernelSpec& spec,
                                            const DeviceFacts& device) {
  ForwardPlan plan;
  plan.spec = spec.portable;
  plan.params = params_of(problem);
  if (writes_nothing(problem)) return plan;

  ForwardParams& p = plan.params;
  const std::int64_t rows = std::max(p.sq, p.lse.padded);
  p.query_blocks = static_cast<int>(forward_query_blocks(rows, spec.portable.queries));
  const auto tiles = count_tiles({p.query_blocks, p.hq, p.b});
  if (!tiles.ok()) return tiles.status();
  p.tiles = *tiles;
  p.heads_a_slice = heads_a_slice(problem, device);
  const Expected<Grid> grid = fold(p.tiles);
  if (!grid.ok()) return grid.status();
  const BlockShape shape = block_shape(spec);
  plan.launches = {{0, *grid, shape.threads, shape.shared_bytes}};
  if (spec.portable.head_dim == 0) {
    WorkspaceLayout layout;
    Status status = layout.add(plan.accumulator, "o in float32, as the head dim has no bound", 4,
                               {p.tiles, kernel::wide_accumulator_floats(spec.portable, p.dv)});
    if (!status.ok()) return status;
    plan.workspace_bytes = layout.bytes();
  }
  return plan;
}

kernel::ForwardParams complete(const ForwardPlan& plan, const Problem& problem,
                               const Arguments& arguments, void* workspace) {
  ForwardParams p = plan.params;
  take_tensors(problem, arguments, p);
  p.accumulator = plan.accumulator.in<float>(workspace);
  return p;
}

std::string describe(const ForwardPlan& plan) {
  if (plan.launches.empty()) return "  grid       none: no result has an element\n";
  const kernel::ForwardParams& p = plan.params;
  const KernelLaunch& launch = plan.launches.front();
  return fmt::format(
      "  tile       {} queries x {} keys, {} threads, {} bytes of shared memory\n"
      "  grid       {} tiles as {} x {}: {} query block{} of {} head{} of {} sequence{}; {} "
      "heads share the L2\n"
      "  workspace  {} bytes{}{}\n",
      plan.spec.queries, plan.spec.keys, launch.threads, launch.shared_bytes, p.tiles,
      launch.grid.x, launch.grid.y, p.query_blocks, p.query_blocks == 1 ? "" : "s", p.hq,
      p.hq == 1 ? "" : "s", p.b, p.b == 1 ? "" : "s", p.heads_a_slice, plan.workspace_bytes,
      plan.workspace_bytes > 0 ? ": " : "", plan.accumulator.name);
}

}  // namespace attune
