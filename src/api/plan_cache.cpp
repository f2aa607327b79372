#include "api/plan_cache.h"

#include <algorithm>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "host/isa.h"
#include "launch/device.h"

namespace attune {
namespace {

// Everything that decides a plan.
struct Key {
  Problem problem;
  int threads = 0;
  int device_index = -1;  // device=cuda: resolved
  std::string isa;        // the environment's limit on instruction sets
  friend bool operator==(const Key&, const Key&) = default;
};

class Cache {
 public:
  std::shared_ptr<const Plan> find(std::size_t hash, const Key& key) {
    const std::lock_guard lock(mutex_);
    for (Entry& entry : entries_) {
      if (entry.hash != hash || !(entry.key == key)) continue;
      entry.last_use = ++clock_;
      return entry.plan;
    }
    return nullptr;
  }

  void keep(std::size_t hash, Key key, std::shared_ptr<const Plan> plan) {
    const std::lock_guard lock(mutex_);
    const auto same = [&](const Entry& entry) { return entry.hash == hash && entry.key == key; };
    if (std::any_of(entries_.begin(), entries_.end(), same)) return;  // another thread was first
    Entry entry{hash, std::move(key), std::move(plan), ++clock_};
    if (entries_.size() < static_cast<std::size_t>(kCachedPlans)) {
      entries_.push_back(std::move(entry));
      return;
    }
    const auto older = [](const Entry& a, const Entry& b) { return a.last_use < b.last_use; };
    *std::min_element(entries_.begin(), entries_.end(), older) = std::move(entry);
  }

  int count() {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(entries_.size());
  }

 private:
  struct Entry {
    std::size_t hash;
    Key key;
    std::shared_ptr<const Plan> plan;
    std::uint64_t last_use;
  };

  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::uint64_t clock_ = 0;
};

// Never destroyed, so that a thread may still call attention() while the process exits.
Cache& cache() {
  static Cache& instance = *new Cache;
  return instance;
}

Key key_of(const Problem& problem, int threads, int device_index) {
  Key key{problem, threads, -1, cpu_isa_variable()};
  if (problem.device == Device::cuda) {
    const Expected<int> index =
        device_index >= 0 ? Expected<int>(device_index) : cuda::current_device();
    // Without a GPU, the plan is what says so.
    key.device_index = index.ok() ? *index : device_index;
  }
  return key;
}

}  // namespace

std::shared_ptr<const Plan> kept_plan(const Problem& problem, int threads, int device_index) {
  return cache().find(hash(problem), key_of(problem, threads, device_index));
}

Expected<std::shared_ptr<const Plan>> cached_plan(const Problem& problem, int threads,
                                                  int device_index) {
  Key key = key_of(problem, threads, device_index);
  const std::size_t code = hash(problem);
  if (std::shared_ptr<const Plan> plan = cache().find(code, key)) return plan;
  PlanOptions options;
  options.threads = threads;
  options.device_index = key.device_index;
  Expected<Plan> made = make_plan(problem, options);
  if (!made.ok()) return made.status();
  auto plan = std::make_shared<const Plan>(std::move(made).value());
  cache().keep(code, std::move(key), plan);
  return plan;
}

int cached_plan_count() { return cache().count(); }

}  // namespace attune
