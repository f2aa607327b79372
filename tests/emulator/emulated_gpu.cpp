#include "tests/emulator/emulated_gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "host/device_facts.h"
#include "plan/gpu.h"
#include "problem/shapes.h"
#include "select/gpu.h"
#include "select/hopper_cost.h"
#include "source/translation_unit.h"
#include "spec/gpu_row.h"
#include "spec/kernel_spec.h"
#include "tests/emulator/block.h"
#include "tests/emulator/entries.h"
#include "tests/emulator/guarded_copy.h"
#include "tests/emulator/tensor_box.h"
#include "tests/support/device_under_test.h"

namespace attune::testing {
namespace {

using emulator::GuardedCopy;
using emulator::GuardedMemory;

// Rows of Turing run on a Turing, the others on a Hopper, which has the most shared memory. It has few
// multiprocessors, so that blocks take several tiles; for a row whose clusters take as many blocks as there is room
// for, some number, as the problem says.
const DeviceFacts& facts_for(const KernelSpec& spec, const Problem& problem) {
  static const DeviceFacts turing = device_of("sm_75").value();
  static const auto hopper = [](int sms) {
    DeviceFacts facts = device_of("sm_90").value();
    facts.sms = sms;
    return facts;
  };
  static const std::array hoppers = {hopper(3), hopper(1), hopper(8), hopper(132)};
  if (spec.archs.begin < 80) return turing;
  if (spec.family != Family::hopper || !spec.hopper.split) return hoppers[0];
  return hoppers[static_cast<std::size_t>(problem.sq * 5 + problem.sk + problem.d / 8) %
                 hoppers.size()];
}

std::int64_t round_up(std::int64_t x, std::int64_t step) {
  return (std::max<std::int64_t>(x, 1) + step - 1) / step * step;
}

// Multiplications by whole tiles, whose rows may be of several heads; backward has five products, two and a half
// times as many.
double padded_work(const Problem& problem, const KernelSpec& spec) {
  const GpuRow tile = gpu_row_of(spec);
  const auto width = [&](std::int64_t d) {
    return static_cast<double>(tile.head_dim > 0 ? tile.head_dim : round_up(d, 64));
  };
  const bool split = spec.family == Family::hopper && spec.hopper.split;
  const int heads =
      split ? cluster_shape(spec.hopper, problem, facts_for(spec, problem).sms).heads : 1;
  return (problem.kind == Kind::backward ? 2.5 : 1.0) *
         static_cast<double>(std::max<std::int64_t>(problem.b, 1) * (problem.hq / heads)) *
         static_cast<double>(round_up(problem.sq * heads, tile.queries)) *
         static_cast<double>(round_up(problem.sk, tile.keys)) *
         (width(problem.d) + width(problem.dv));
}

struct Runs {
  int count = 0;
  double seconds = 0;
};

std::map<std::string, Runs>& runs() {
  static std::map<std::string, Runs> all;
  return all;
}

// As the driver does, for the emulated copy engine.
Status describe_tensor(const BoxedTensor& tensor) {
  if (std::ranges::count(tensor.sizes, 0U) > 0) {
    return {
        Code::invalid_argument,
        fmt::format("{} has no element, and the copy engine takes no empty tensor", tensor.name)};
  }
  emulator::MappedTensor mapped{};
  mapped.magic = emulator::MappedTensor::kMagic;
  mapped.data = static_cast<const unsigned char*>(tensor.data);
  for (std::size_t i = 0; i < 4; ++i) mapped.sizes[i] = tensor.sizes[i];
  for (std::size_t i = 0; i < 3; ++i) {
    mapped.strides[i] = static_cast<std::int64_t>(tensor.strides[i]);
  }
  mapped.box_columns = tensor.box[0], mapped.box_heads = tensor.box[1];
  mapped.box_rows = tensor.box[2];
  mapped.element_bytes = static_cast<std::uint32_t>(bytes_of(tensor.element));
  std::memcpy(tensor.map, &mapped, sizeof(mapped));
  return {};
}

// A call's tensors where a GPU's would lie.
class DeviceCopies {
 public:
  DeviceCopies(const Problem& problem, const Arguments& host) : arguments_(host) {
    const std::size_t misalignment =
        problem.alignment >= 16 ? 0 : static_cast<std::size_t>(problem.alignment);
    for (const TensorSpec& spec : tensors_of(problem)) {
      if (spec.role == Role::unused) continue;
      const GuardedCopy& copy =
          copies_
              .emplace_back(spec.name, std::make_unique<GuardedCopy>(
                                           host.*spec.view, spec.strides ? misalignment : 0))
              .second.
              operator*();
      arguments_.*spec.view = copy.view();
    }
  }
  [[nodiscard]] const Arguments& arguments() const { return arguments_; }

  // Copies everything back, inputs and gaps too.
  [[nodiscard]] Status fetch() const {
    for (const auto& [name, copy] : copies_) {
      copy->fetch();
      if (const std::string damage = copy->damage(); !damage.empty()) {
        return {Code::internal, fmt::format("{}: {}", name, damage)};
      }
    }
    return {};
  }

 private:
  Arguments arguments_;
  std::deque<std::pair<const char*, std::unique_ptr<GuardedCopy>>> copies_;
};

class EmulatedGpu final : public DeviceUnderTest {
 public:
  explicit EmulatedGpu(double most_work) : most_work_(most_work) {
    for (const emulator::Entry& entry : emulator::entries()) {
      const auto spec = spec_from(entry.id);
      if (spec && std::find(rows_.begin(), rows_.end(), *spec) == rows_.end()) {
        rows_.push_back(*spec);
      }
    }
  }

  [[nodiscard]] std::string missing() const override { return {}; }
  [[nodiscard]] bool has_whole_table() const override { return false; }
  [[nodiscard]] std::vector<KernelSpec> kernels() const override { return rows_; }

  [[nodiscard]] bool serves(const KernelSpec& spec, const Problem& problem) const override {
    return spec.kind == problem.kind && spec.dtype == problem.dtype &&
           padded_work(problem, spec) <= most_work_ &&
           reasons_against_gpu_row(spec, problem, facts_for(spec, problem)).empty();
  }

  [[nodiscard]] std::vector<KernelSpec> serving(const Problem& problem,
                                                std::string_view) const override {
    std::vector<KernelSpec> found;
    for (const KernelSpec& spec : rows_) {
      if (serves(spec, problem)) found.push_back(spec);
    }
    return found;
  }

  [[nodiscard]] Status run(const Problem& problem, const KernelSpec& spec,
                           const Arguments& host) override {
    const auto plan = plan_on_gpu(problem, spec, facts_for(spec, problem));
    if (!plan.ok()) return plan.status();
    return std::visit([&](const auto& one) { return run_plan(problem, spec, one, host); }, *plan);
  }

 private:
  template <typename Plan>
  [[nodiscard]] static Status run_plan(const Problem& problem, const KernelSpec& spec,
                                       const Plan& plan, const Arguments& host) {
    const DeviceCopies copies(problem, host);
    // As large as asked for and not a byte more; garbage at first.
    const GuardedMemory workspace(plan.workspace_bytes);
    if constexpr (std::is_same_v<Plan, BackwardPlan>) {
      if (Status status = check_gradients(plan, problem, copies.arguments()); !status.ok()) {
        return status;
      }
    }
    auto params = complete(plan, problem, copies.arguments(), workspace.data());
    if constexpr (std::is_same_v<Plan, HopperPlan>) {
      for (const BoxedTensor& tensor : boxes(plan, problem, params)) {
        if (Status status = describe_tensor(tensor); !status.ok()) return status;
      }
    }
    // A problem's own, so that one seed repeats it.
    const auto seed = static_cast<unsigned>(problem.sq * 31 + problem.sk * 17 + problem.d);
    for (const KernelLaunch& one : plan.launches) {
      const char* const name = entries_of(spec)[one.entry].name;
      if (Status status = launch(spec, name, one, &params, sizeof(params), seed); !status.ok()) {
        return status;
      }
    }
    if (const std::string damage = workspace.damage(); !damage.empty()) {
      return {Code::internal, "workspace: " + damage};
    }
    return copies.fetch();
  }

  [[nodiscard]] static Status launch(const KernelSpec& spec, std::string_view name,
                                     const KernelLaunch& one, const void* params,
                                     std::size_t params_bytes, unsigned seed) {
    const std::string id = id_of(spec);
    const emulator::Entry* const entry = emulator::find_entry(id, name);
    if (entry == nullptr || entry->params_bytes != params_bytes) {
      return {Code::internal, fmt::format("{} has no entry {} for such parameters", id, name)};
    }
    emulator::Launch how;
    how.grid = {static_cast<unsigned>(one.grid.x), static_cast<unsigned>(one.grid.y), 1};
    how.threads = static_cast<unsigned>(one.threads);
    how.shared_bytes = static_cast<std::size_t>(one.shared_bytes);
    how.cluster = static_cast<unsigned>(std::max(1, one.cluster));
    how.seed = seed;
    const auto begin = std::chrono::steady_clock::now();
    try {
      emulator::launch(how, [&] { entry->run(params); });
    } catch (const std::runtime_error& error) {
      return {Code::device_error, fmt::format("{}: {}", name, error.what())};
    }
    Runs& done = runs()[id];
    if (name == kEntryName) ++done.count;
    done.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return {};
  }

  std::vector<KernelSpec> rows_;
  double most_work_;
};

}  // namespace

void use_emulator(double most_work) { judge_on(std::make_unique<EmulatedGpu>(most_work)); }

void print_emulated_runs() {
  for (const auto& [id, done] : runs()) {
    fmt::print("{:>6} runs of {} in {:.1f} s\n", done.count, id, done.seconds);
  }
}

}  // namespace attune::testing
