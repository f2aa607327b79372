#include "launch/kernel.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace attune::cuda {

namespace {

struct Loaded {
  std::mutex mutex;                 // held while the kernels are being loaded
  std::vector<Function> functions;  // stay as they are once there
};

// Entries stay for the life of the process: a context that is gone took its modules along, and its
// number never comes again.
class Table {
 public:
  std::shared_ptr<Loaded> entry(unsigned long long context, const std::string& id) {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Loaded>& found = entries_[{context, id}];
    if (found == nullptr) found = std::make_shared<Loaded>();
    return found;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<unsigned long long, std::string>, std::shared_ptr<Loaded>> entries_;
};

// Never destroyed, so that a thread may still run a plan while the process exits.
Table& table() {
  static Table& instance = *new Table;
  return instance;
}

// Loading may allocate and synchronise, which another stream's capture forbids to a thread unless
// it says that it knows what it does. A module is no part of any graph, so it does.
class RelaxedCapture {
 public:
  explicit RelaxedCapture(const Driver& driver) : driver_(driver) {
    active_ = driver_.exchange_capture_mode(&mode_) == kSuccess;
  }
  ~RelaxedCapture() {
    if (active_) (void)driver_.exchange_capture_mode(&mode_);
  }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  const Driver& driver_;
  int mode_ = kCaptureRelaxed;
  bool active_ = false;
};

Expected<std::vector<Function>> load(const Driver& driver, const KernelImage& image) {
  const RelaxedCapture relaxed(driver);
  Module module = nullptr;
  const auto failed = [&](Result result, const std::string& doing) {
    if (module != nullptr) (void)driver.module_unload(module);
    return status_of(driver, result, fmt::format("{}: {}", image.id, doing));
  };
  if (const Result result = driver.module_load(&module, image.cubin.data()); result != kSuccess) {
    return failed(result, fmt::format("loading its cubin of {} bytes", image.cubin.size()));
  }
  std::vector<Function> functions;
  for (const KernelEntry& entry : image.entries) {
    Function function = nullptr;
    if (const Result result = driver.module_function(&function, module, entry.name);
        result != kSuccess) {
      return failed(result, fmt::format("looking {} up in its cubin", entry.name));
    }
    functions.push_back(function);
    constexpr int kWithoutAsking = 48 * 1024;
    if (entry.shared_bytes <= kWithoutAsking) continue;
    const Result result =
        driver.set_function_attribute(function, kFunctionDynamicShared, entry.shared_bytes);
    if (result != kSuccess) {
      return failed(
          result, fmt::format("asking for {} bytes of shared memory a block", entry.shared_bytes));
    }
  }
  return functions;
}

}  // namespace

Expected<std::span<const Function>> load_kernels(const Driver& driver, unsigned long long context,
                                                 const KernelImage& image) {
  const std::shared_ptr<Loaded> entry = table().entry(context, image.id);
  const std::lock_guard lock(entry->mutex);
  if (entry->functions.empty()) {
    Expected<std::vector<Function>> loaded = load(driver, image);
    if (!loaded.ok()) return loaded.status();
    entry->functions = std::move(loaded).value();
  }
  return std::span<const Function>(entry->functions);
}

int registers_of(const Driver& driver, Function function) {
  int registers = 0;
  const Result result = driver.function_attribute(&registers, kFunctionRegisters, function);
  return result == kSuccess ? registers : 0;
}

Status launch(const Driver& driver, Function function, const Launch& how, const void* parameters,
              const std::string& id) {
  std::array<LaunchAttribute, 2> attributes{};
  unsigned count = 0;
  if (how.cluster > 0) {
    attributes[count].id = kAttributeCluster;
    attributes[count++].value.cluster = {how.cluster, 1, 1};
  }
  if (how.programmatic) {
    attributes[count].id = kAttributeProgrammatic;
    attributes[count++].value.programmatic = 1;
  }
  const LaunchConfig config{how.grid_x,
                            how.grid_y,
                            how.grid_z,
                            how.threads,
                            1,
                            1,
                            how.shared_bytes,
                            how.stream,
                            count > 0 ? attributes.data() : nullptr,
                            count};
  void* pointers[] = {const_cast<void*>(parameters)};
  const Result result = driver.launch(&config, function, pointers, nullptr);
  if (result == kSuccess) return {};
  return status_of(
      driver, result,
      fmt::format("{}: launching {} x {} x {} blocks of {} threads with {} bytes of shared memory",
                  id, how.grid_x, how.grid_y, how.grid_z, how.threads, how.shared_bytes));
}

}  // namespace attune::cuda
