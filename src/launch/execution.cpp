#include "launch/execution.h"

#include <fmt/format.h>

#include <bit>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "launch/device.h"
#include "launch/tensor_map.h"
#include "problem/shapes.h"
#include "source/translation_unit.h"

namespace attune::cuda {

namespace {

// Kernels that wait for their predecessors themselves, and so may be launched beside the last blocks of these.
template <typename Plan>
constexpr bool kBeginsEarly = std::is_same_v<Plan, HopperPlan>;
// Graphs have such edges since CUDA 12.3.
constexpr int kCapturesProgrammatic = 12030;

}  // namespace

Expected<std::unique_ptr<Execution>> Execution::make(const Problem& problem, const KernelSpec& spec,
                                                     int device, const DeviceFacts& facts) {
  Expected<GpuPlan> plan = plan_on_gpu(problem, spec, facts);
  if (!plan.ok()) return plan.status();
  return std::unique_ptr<Execution>(
      new Execution(problem, spec, device, std::move(plan).value(), facts.arch));
}

Execution::Execution(const Problem& problem, const KernelSpec& spec, int device, GpuPlan plan,
                     int arch)
    : problem_(problem),
      spec_(spec),
      id_(id_of(spec)),
      device_(device),
      arch_(arch),
      any_memory_(reads_host_memory(device)),
      plan_(std::move(plan)),
      launches_(std::visit([](const auto& one) { return std::span(one.launches); }, plan_)),
      workspace_bytes_(std::visit([](const auto& one) { return one.workspace_bytes; }, plan_)) {}

std::string Execution::describe() const {
  std::string text = attune::describe(plan_);
  const std::lock_guard lock(mutex_);
  if (image_ != nullptr) {
    text += fmt::format("  registers  {} a thread, {} bytes of local memory\n",
                        image_->facts.registers, image_->facts.local_bytes);
  }
  return text;
}

Expected<std::span<const Function>> Execution::functions_in(const Driver& driver,
                                                            unsigned long long context) const {
  const Resident* latest = latest_.load(std::memory_order_acquire);
  if (latest != nullptr && latest->context == context) return latest->functions;

  const std::lock_guard lock(mutex_);
  for (const Resident& resident : residents_) {
    if (resident.context != context) continue;
    latest_.store(&resident, std::memory_order_release);
    return resident.functions;
  }
  if (image_ == nullptr) {
    Expected<std::shared_ptr<const Image>> image = image_for(spec_, arch_);
    if (!image.ok()) return image.status();
    image_ = std::move(image).value();
  }
  const int shared_bytes = block_shape(spec_).shared_bytes;
  std::vector<KernelEntry> entries;
  for (const UnitEntry& entry : entries_of(spec_)) {
    entries.push_back({entry.name, entry.shared ? shared_bytes : 0});
  }
  const KernelImage image{fmt::format("{} for sm_{}", id_, arch_), image_->cubin, entries};
  const Expected<std::span<const Function>> functions = load_kernels(driver, context, image);
  if (!functions.ok()) return functions.status();
  residents_.push_back({context, *functions});
  latest_.store(&residents_.back(), std::memory_order_release);
  return *functions;
}

Status Execution::prepare() const {
  if (launches_.empty()) return {};
  const auto& opened = driver();
  if (!opened.ok()) return opened.status();
  const Expected<ContextScope> scope = ContextScope::enter(**opened, device_, nullptr);
  if (!scope.ok()) return scope.status();
  const auto functions = functions_in(**opened, scope->id());
  return functions.ok() ? Status{} : functions.status();
}

// Pageable host memory is unknown to the driver; a kernel that reads it dies, and its context with
// it.
Status Execution::check_memory(const Driver& driver, const Arguments& arguments) const {
  if (any_memory_) return {};
  const auto check_one = [&](const char* name, const TensorView& view) -> Status {
    if (view.elements() == 0) return {};
    unsigned type = 0;
    const auto address = static_cast<DevicePointer>(reinterpret_cast<std::uintptr_t>(view.data));
    if (driver.pointer_attribute(&type, kPointerMemoryType, address) == kSuccess) return {};
    return {Code::invalid_argument,
            fmt::format("{}: {} at {:#x} is memory that GPU {} can't read (the driver does not "
                        "know it): copy it to the device, or use device=cpu",
                        id_, name, address, device_)};
  };
  for (const TensorSpec& tensor : tensors_of(problem_)) {
    if (tensor.role == Role::unused) continue;
    if (Status status = check_one(tensor.name, arguments.*tensor.view); !status.ok()) return status;
  }
  if (arguments.dropout_state.empty()) return {};
  return check_one("dropout_state", arguments.dropout_state);
}

// What is asked of the tensors beside check_arguments().
Status Execution::check_layout(const Arguments& arguments) const {
  const auto* backward = std::get_if<BackwardPlan>(&plan_);
  if (backward == nullptr) return {};
  Status status = check_gradients(*backward, problem_, arguments);
  if (status.ok()) return status;
  return {status.code(), fmt::format("{}: {}", id_, status.message())};
}

Status Execution::launch_with(const Driver& driver, std::span<const Function> functions,
                              const Arguments& arguments, void* workspace) const {
  const auto launch_all = [&](const auto& plan) -> Status {
    auto params = complete(plan, problem_, arguments, workspace);
    if constexpr (std::is_same_v<std::decay_t<decltype(plan)>, HopperPlan>) {
      for (const BoxedTensor& tensor : boxes(plan, problem_, params)) {
        if (Status status = describe_tensor(driver, tensor, id_); !status.ok()) return status;
      }
    }
    for (const KernelLaunch& one : launches_) {
      Launch how;
      how.grid_x = static_cast<unsigned>(one.grid.x);
      how.grid_y = static_cast<unsigned>(one.grid.y);
      how.threads = static_cast<unsigned>(one.threads);
      how.shared_bytes = static_cast<unsigned>(one.shared_bytes);
      how.cluster = static_cast<unsigned>(one.cluster);
      how.stream = static_cast<Stream>(arguments.stream);
      how.programmatic =
          kBeginsEarly<std::decay_t<decltype(plan)>> && driver.version >= kCapturesProgrammatic;
      Status status = launch(driver, functions[one.entry], how, &params, id_);
      if (!status.ok()) return status;
    }
    return {};
  };
  return std::visit(launch_all, plan_);
}

Status Execution::run(const Arguments& arguments, void* workspace) const {
  if (launches_.empty()) return {};
  if (Status status = check_layout(arguments); !status.ok()) return status;
  const auto& opened = driver();
  if (!opened.ok()) return opened.status();
  const Driver& cuda = **opened;
  const auto stream = static_cast<Stream>(arguments.stream);
  const Expected<ContextScope> scope = ContextScope::enter(cuda, device_, stream);
  if (!scope.ok()) return scope.status();
  if (!memory_checked_.load(std::memory_order_relaxed)) {
    if (Status status = check_memory(cuda, arguments); !status.ok()) return status;
    memory_checked_.store(true, std::memory_order_relaxed);
  }
  const auto functions = functions_in(cuda, scope->id());
  if (!functions.ok()) return functions.status();
  if (workspace_bytes_ == 0 || workspace != nullptr) {
    return launch_with(cuda, *functions, arguments, workspace);
  }
  DevicePointer own = 0;
  if (const Result result = cuda.allocate_async(&own, workspace_bytes_, stream);
      result != kSuccess) {
    return status_of(cuda, result,
                     fmt::format("{}: a workspace of {} bytes", id_, workspace_bytes_));
  }
  Status launched = launch_with(cuda, *functions, arguments, std::bit_cast<void*>(own));
  const Result freed = cuda.release_async(own, stream);
  if (!launched.ok()) return launched;
  return status_of(cuda, freed, fmt::format("{}: freeing the workspace", id_));
}

}  // namespace attune::cuda
