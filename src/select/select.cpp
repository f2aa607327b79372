#include "select/select.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <utility>

#include "select/gpu.h"
#include "select/hopper_cost.h"
#include "spec/gpu_row.h"

namespace attune {

namespace {

// Why this machine or its settings rule a spec out.
void add_machine_reasons(const KernelSpec& spec, std::string_view forced,
                         const std::string& variable, std::vector<std::string>* reasons) {
  if (const std::string& missing = missing_for(spec.isa); !missing.empty()) {
    reasons->push_back(missing);
  }
  if (!forced.empty() && forced != id_of(spec)) {
    reasons->push_back("the caller asked for " + std::string(forced));
  }
  if (variable.empty() || !forced.empty()) return;
  const std::optional<Isa> limit = isa_from(variable);
  if (!limit) {
    reasons->push_back("ATTUNE_CPU_ISA=" + variable +
                       " names no instruction set; known: generic, avx2, avx512, avx512bf16, amx");
  } else if (spec.isa > *limit) {
    reasons->push_back("ATTUNE_CPU_ISA=" + variable + " allows no higher set");
  }
}

std::vector<Candidate> cpu_candidates(const Problem& problem, std::string_view forced) {
  const std::string variable = cpu_isa_variable();
  std::vector<Candidate> list;
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family != Family::cpu) continue;
    if (spec.kind != problem.kind || spec.dtype != problem.dtype) continue;
    Candidate candidate{spec, {}, {}};
    add_machine_reasons(spec, forced, variable, &candidate.reasons);
    list.push_back(std::move(candidate));
  }
  // Only where nobody chose a set by name: the bf16 dot product goes behind plain AVX-512 where it
  // is the slower of the two.
  if (bf16_dot_is_slow() && variable.empty()) {
    const auto dot = std::find_if(list.begin(), list.end(),
                                  [](const Candidate& c) { return c.spec.isa == Isa::avx512bf16; });
    if (dot != list.end() && std::next(dot) != list.end()) {
      dot->note = "this CPU's vdpbf16ps is no faster than two float products";
      std::iter_swap(dot, std::next(dot));
    }
  }
  return list;
}

// What decides between GPU rows that serve: the newest family, aligned loads, then the smallest head
// dims, then the fewest features, then the tile that takes the fewest cycles. The table is in this order
// within an architecture.
auto rank(const KernelSpec& spec, double cycles) {
  const GpuRow row = gpu_row_of(spec);
  const int bound = row.head_dim == 0 ? 1 << 30 : row.head_dim;
  const int features = int{row.bias} + int{row.dropout} + 2 * int{row.general};
  return std::tuple{spec.family != Family::hopper,
                    !row.aligned,
                    bound,
                    row.value_dim,
                    features,
                    cycles,
                    -spec.archs.begin};
}

// Where a portable row is the first to serve on a GPU that has rows of its own: what that costs, and what stands in
// the way of the nearest of those.
void say_cost_of_portable(const DeviceFacts& device, std::vector<Candidate>& list) {
  const auto serves = [](const Candidate& c) { return c.reasons.empty(); };
  const auto taken = std::ranges::find_if(list, serves);
  if (taken == list.end() || taken->spec.family != Family::portable) return;
  const Candidate* nearest = nullptr;
  for (const Candidate& c : list) {
    if (c.spec.family != Family::hopper || c.spec.archs.begin != device.arch) continue;
    if (nearest == nullptr || c.reasons.size() < nearest->reasons.size()) nearest = &c;
  }
  if (nearest == nullptr) return;
  taken->note = fmt::format(
      "on an H200 it takes at least {} times as long as {}, the nearest of Hopper's rows: {}",
      times_of_portable(nearest->spec.hopper), id_of(nearest->spec),
      fmt::join(nearest->reasons, "; "));
}

std::vector<Candidate> cuda_candidates(const Problem& problem, std::string_view forced,
                                       const DeviceFacts* device) {
  std::vector<Candidate> list;
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family == Family::cpu) continue;
    if (spec.kind != problem.kind || spec.dtype != problem.dtype) continue;
    Candidate candidate{spec, {}, {}};
    if (device == nullptr) {
      candidate.reasons.emplace_back("there is no GPU");
    } else {
      candidate.reasons = reasons_against_gpu_row(spec, problem, *device);
    }
    if (!forced.empty() && forced != id_of(spec)) {
      candidate.reasons.push_back("the caller asked for " + std::string(forced));
    }
    list.push_back(std::move(candidate));
  }
  using Rank = decltype(rank(list.front().spec, 0));
  std::vector<std::pair<Rank, std::size_t>> order;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto& [spec, reasons, note] = list[i];
    // Only rows that serve compete by their tiles.
    const bool estimates = spec.family == Family::hopper && reasons.empty();
    const double cycles = estimates ? estimated_cycles(spec.hopper, problem, device->sms) : 0;
    order.emplace_back(rank(spec, cycles), i);
  }
  std::ranges::sort(order);
  std::vector<Candidate> sorted;
  sorted.reserve(list.size());
  for (const auto& [_, i] : order) sorted.push_back(std::move(list[i]));
  if (device != nullptr && forced.empty()) say_cost_of_portable(*device, sorted);
  return sorted;
}

}  // namespace

std::vector<Candidate> candidates(const Problem& problem, std::string_view forced,
                                  const DeviceFacts* device) {
  return problem.device == Device::cuda ? cuda_candidates(problem, forced, device)
                                        : cpu_candidates(problem, forced);
}

std::string no_candidate(const Problem& problem, const DeviceFacts* device) {
  const bool cuda = problem.device == Device::cuda;
  const std::string where = !cuda               ? "a CPU"
                            : device == nullptr ? "a GPU"
                                                : fmt::format("sm_{}", device->arch);
  return fmt::format(
      "no {} kernel takes {} on {}{}", problem.kind == Kind::forward ? "forward" : "backward",
      to_string(problem.dtype), where, cuda ? ": use device=cpu, or f16 or bf16" : "");
}

}  // namespace attune
