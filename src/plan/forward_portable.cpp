#include "plan/forward_portable.h"

#include <attune/kernel/forward_portable_layout.h>

#include "plan/forward_tiles.h"
#include "plan/portable_params.h"
#include "source/translation_unit.h"

namespace attune {

using kernel::ForwardParams;

Expected<ForwardPlan> plan_forward_portable(const Problem& problem, const KernelSpec& spec,
                                            const DeviceFacts& device) {
  ForwardPlan plan;
  plan.spec = spec.portable;
  plan.params = params_of(problem);
  if (writes_nothing(problem)) return plan;

  ForwardParams& p = plan.params;
  const Expected<Grid> grid = lay_tiles(problem, spec.portable.queries, device, p);
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
  return describe_tiles(plan.launches, plan.spec.queries, plan.spec.keys, plan.params,
                        plan.accumulator);
}

}  // namespace attune
