#include "launch/device.h"

#include <fmt/format.h>

#include <map>
#include <mutex>
#include <utility>

namespace attune::cuda {

namespace {

Expected<Device> device_at(const Driver& driver, int index) {
  Device device = 0;
  const Result result = driver.device_get(&device, index);
  if (result == kSuccess) return device;
  int count = 0;
  if (driver.device_count(&count) == kSuccess && (index < 0 || index >= count)) {
    return Status{Code::invalid_argument,
                  fmt::format("device_index = {}, but there {} {} GPU{}", index,
                              count == 1 ? "is" : "are", count, count == 1 ? "" : "s")};
  }
  return status_of(driver, result, fmt::format("cuDeviceGet({})", index));
}

// Retained once a process and never released, as the CUDA runtime does.
Expected<Context> primary_context(const Driver& driver, int index) {
  static std::mutex mutex;
  static auto& contexts = *new std::map<int, Context>;
  const std::lock_guard lock(mutex);
  if (const auto found = contexts.find(index); found != contexts.end()) return found->second;
  const Expected<Device> device = device_at(driver, index);
  if (!device.ok()) return device.status();
  Context context = nullptr;
  const Result result = driver.primary_retain(&context, *device);
  if (result != kSuccess) {
    return status_of(driver, result, fmt::format("the primary context of GPU {}", index));
  }
  contexts.emplace(index, context);
  return context;
}

// Handles 1 and 2 are the legacy and the per-thread default stream.
bool is_named(Stream stream) { return reinterpret_cast<std::uintptr_t>(stream) > 2; }

bool is_of(const Driver& driver, int device) {
  Device current = -1;
  return driver.context_device(&current) == kSuccess && current == device;
}

}  // namespace

Expected<int> device_count() {
  const auto& opened = driver();
  if (!opened.ok()) return opened.status();
  int count = 0;
  const Result result = (*opened)->device_count(&count);
  if (result != kSuccess) return status_of(**opened, result, "cuDeviceGetCount");
  return count;
}

Expected<int> current_device() {
  const auto& opened = driver();
  if (!opened.ok()) return opened.status();
  Context context = nullptr;
  Device device = 0;
  // Devices are their indices, by the driver's own documentation of cuDeviceGet.
  if ((*opened)->context_current(&context) == kSuccess && context != nullptr &&
      (*opened)->context_device(&device) == kSuccess) {
    return device;
  }
  return 0;
}

Expected<DeviceFacts> facts_of_device(int index) {
  const auto& opened = driver();
  if (!opened.ok()) return opened.status();
  const Driver& cuda = **opened;
  const Expected<Device> device = device_at(cuda, index);
  if (!device.ok()) return device.status();
  char name[256] = {};
  int major = 0, minor = 0, shared = 0, sms = 0, l2 = 0;
  Result result = cuda.device_name(name, sizeof(name) - 1, *device);
  const auto ask = [&](int& value, int attribute) {
    if (result == kSuccess) result = cuda.device_attribute(&value, attribute, *device);
  };
  ask(major, kAttributeMajor);
  ask(minor, kAttributeMinor);
  ask(shared, kAttributeSharedPerBlock);
  ask(sms, kAttributeSms);
  ask(l2, kAttributeL2Bytes);
  if (result != kSuccess) {
    return status_of(cuda, result, fmt::format("the attributes of GPU {}", index));
  }
  return DeviceFacts{10 * major + minor, name, shared, sms, l2};
}

bool reads_host_memory(int index) {
  const auto& opened = driver();
  if (!opened.ok()) return false;
  int reads = 0;
  const Expected<Device> device = device_at(**opened, index);
  return device.ok() &&
         (*opened)->device_attribute(&reads, kAttributeHostPageTables, *device) == kSuccess &&
         reads != 0;
}

ContextScope::ContextScope(const Driver& driver, Context context, bool pushed)
    : driver_(&driver), pushed_(pushed), id_(reinterpret_cast<std::uintptr_t>(context)) {
  if (driver.context_id == nullptr) return;
  unsigned long long id = 0;
  if (driver.context_id(context, &id) == kSuccess) id_ = id;
}

ContextScope::ContextScope(ContextScope&& other) noexcept
    : driver_(other.driver_), pushed_(std::exchange(other.pushed_, false)), id_(other.id_) {}

ContextScope::~ContextScope() {
  Context popped = nullptr;
  if (pushed_) (void)driver_->context_pop(&popped);
}

Expected<ContextScope> ContextScope::enter(const Driver& driver, int device, Stream stream) {
  Context context = nullptr;
  const Result result = driver.context_current(&context);
  if (result != kSuccess) return status_of(driver, result, "cuCtxGetCurrent");
  if (context != nullptr && is_of(driver, device)) return ContextScope(driver, context, false);

  if (is_named(stream)) {
    const Result found = driver.stream_context(stream, &context);
    if (found != kSuccess) return status_of(driver, found, "the context of the stream");
  } else {
    const Expected<Context> primary = primary_context(driver, device);
    if (!primary.ok()) return primary.status();
    context = *primary;
  }
  const Result pushed = driver.context_push(context);
  if (pushed != kSuccess) return status_of(driver, pushed, "cuCtxPushCurrent");
  ContextScope scope(driver, context, true);
  if (is_named(stream) && !is_of(driver, device)) {
    return Status{
        Code::invalid_argument,
        fmt::format("the stream is not one of GPU {}, for which the plan was made", device)};
  }
  return scope;
}

}  // namespace attune::cuda
