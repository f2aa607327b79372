#include "launch/forward_execution.h"

#include <fmt/format.h>

#include <bit>
#include <utility>

#include "launch/device.h"
#include "problem/shapes.h"
#include "source/translation_unit.h"

namespace attune::cuda {

Expected<std::unique_ptr<ForwardExecution>> ForwardExecution::make(const Problem& problem,
                                                                   const KernelSpec& spec,
                                                                   int device,
                                                                   const DeviceFacts& facts) {
  const Expected<PortablePlan> plan = plan_forward_portable(problem, spec, facts);
  if (!plan.ok()) return plan.status();
  return std::unique_ptr<ForwardExecution>(
      new ForwardExecution(problem, spec, device, *plan, facts.arch));
}

ForwardExecution::ForwardExecution(const Problem& problem, const KernelSpec& spec, int device,
                                   const PortablePlan& plan, int arch)
    : problem_(problem),
      spec_(spec),
      id_(id_of(spec)),
      device_(device),
      arch_(arch),
      any_memory_(reads_host_memory(device)),
      plan_(plan) {}

std::string ForwardExecution::describe() const {
  std::string text = attune::describe(plan_);
  const std::lock_guard lock(mutex_);
  if (image_ != nullptr) {
    text += fmt::format("  registers  {} a thread, {} bytes of local memory\n",
                        image_->facts.registers, image_->facts.local_bytes);
  }
  return text;
}

Expected<Function> ForwardExecution::function_in(const Driver& driver,
                                                 unsigned long long context) const {
  const Resident* latest = latest_.load(std::memory_order_acquire);
  if (latest != nullptr && latest->context == context) return latest->function;

  const std::lock_guard lock(mutex_);
  for (const Resident& resident : residents_) {
    if (resident.context != context) continue;
    latest_.store(&resident, std::memory_order_release);
    return resident.function;
  }
  if (image_ == nullptr) {
    Expected<std::shared_ptr<const Image>> image = image_for(spec_, arch_);
    if (!image.ok()) return image.status();
    image_ = std::move(image).value();
  }
  const KernelImage kernel{fmt::format("{} for sm_{}", id_, arch_), image_->cubin,
                           kEntryName.data(), plan_.shared_bytes};
  const Expected<Function> function = load_kernel(driver, context, kernel);
  if (!function.ok()) return function.status();
  residents_.push_back({context, *function});
  latest_.store(&residents_.back(), std::memory_order_release);
  return *function;
}

Status ForwardExecution::prepare() const {
  if (plan_.nothing) return {};
  const auto& opened = driver();
  if (!opened.ok()) return opened.status();
  const Expected<ContextScope> scope = ContextScope::enter(**opened, device_, nullptr);
  if (!scope.ok()) return scope.status();
  const Expected<Function> function = function_in(**opened, scope->id());
  return function.ok() ? Status{} : function.status();
}

// Pageable host memory is unknown to the driver; a kernel that reads it dies, and its context with
// it.
Status ForwardExecution::check_memory(const Driver& driver, const Arguments& arguments) const {
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

Status ForwardExecution::launch_with(const Driver& driver, Function function,
                                     const Arguments& arguments, void* workspace) const {
  const kernel::ForwardParams params = complete(plan_, problem_, arguments, workspace);
  Launch how;
  how.grid_x = static_cast<unsigned>(plan_.grid.x);
  how.grid_y = static_cast<unsigned>(plan_.grid.y);
  how.threads = static_cast<unsigned>(plan_.threads);
  how.shared_bytes = static_cast<unsigned>(plan_.shared_bytes);
  how.stream = static_cast<Stream>(arguments.stream);
  return launch(driver, function, how, &params, id_);
}

Status ForwardExecution::run(const Arguments& arguments, void* workspace) const {
  if (plan_.nothing) return {};
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
  const Expected<Function> function = function_in(cuda, scope->id());
  if (!function.ok()) return function.status();
  if (plan_.workspace_bytes == 0 || workspace != nullptr) {
    return launch_with(cuda, *function, arguments, workspace);
  }
  DevicePointer own = 0;
  if (const Result result = cuda.allocate_async(&own, plan_.workspace_bytes, stream);
      result != kSuccess) {
    return status_of(cuda, result,
                     fmt::format("{}: a workspace of {} bytes", id_, plan_.workspace_bytes));
  }
  Status launched = launch_with(cuda, *function, arguments, std::bit_cast<void*>(own));
  const Result freed = cuda.release_async(own, stream);
  if (!launched.ok()) return launched;
  return status_of(cuda, freed, fmt::format("{}: freeing the workspace", id_));
}

}  // namespace attune::cuda
