#include "wrap/temporaries.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace attune::wrap {

namespace {

constexpr std::int64_t kTypicalSize = 1024;

double typical_bytes(const Program& program, const Expression& bytes) {
  const std::int64_t value =
      evaluate(bytes, [&](const std::string& name) -> std::optional<std::int64_t> {
        const auto range = program.range_of(name);
        if (!range) return std::nullopt;
        return std::clamp(kTypicalSize, range->min, range->max);
      });
  return static_cast<double>(std::max<std::int64_t>(1, value));
}

}  // namespace

WorkspacePlan plan_workspace(const Program& program, const std::vector<MemoryNeed>& needs) {
  WorkspacePlan plan;
  plan.slot_of.resize(needs.size());
  std::vector<std::size_t> order(needs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return needs[a].first < needs[b].first; });
  std::vector<std::size_t> busy_until;  // of each slot
  for (const std::size_t i : order) {
    const MemoryNeed& need = needs[i];
    const double bytes = typical_bytes(program, need.bytes);
    std::size_t best = plan.slots.size();
    double least = 0;
    for (std::size_t slot = 0; slot < plan.slots.size(); ++slot) {
      if (busy_until[slot] >= need.first) continue;
      const double gap =
          plan.slots[slot] == need.bytes
              ? -1
              : std::fabs(std::log(typical_bytes(program, plan.slots[slot]) / bytes));
      if (best == plan.slots.size() || gap < least) {
        best = slot;
        least = gap;
      }
    }
    if (best == plan.slots.size()) {
      plan.slots.push_back(need.bytes);
      busy_until.push_back(need.last);
    } else {
      Expression& slot = plan.slots[best];
      if (slot != need.bytes) {
        slot = combine(Expression::Op::maximum, {std::move(slot), need.bytes});
      }
      busy_until[best] = need.last;
    }
    plan.slot_of[i] = best;
  }
  return plan;
}

TemporaryNeeds needs_of_temporaries(const Program& program) {
  TemporaryNeeds result;
  result.need_of.assign(program.tensors.size(), -1);
  for (std::size_t step = 0; step < program.steps.size(); ++step) {
    for (const std::size_t tensor : tensors_of(program.steps[step])) {
      const std::size_t storage = program.storage_of(tensor);
      if (program.tensors[storage].role != TensorRole::temporary) continue;
      if (result.need_of[storage] < 0) {
        result.need_of[storage] = static_cast<std::ptrdiff_t>(result.needs.size());
        result.needs.push_back(
            {program.tensors[storage].name, extent_bytes(program.tensors[storage]), step, step});
      }
      result.needs[static_cast<std::size_t>(result.need_of[storage])].last = step;
    }
  }
  return result;
}

}  // namespace attune::wrap
