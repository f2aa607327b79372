// An instance of the program and what it has loaded, context by context.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "wrap/runtime/driver.h"
#include "wrap/runtime/image.h"

namespace attune::wrapped {

// A kernel in an image, for one architecture, and how it is launched.
struct Binary {
  int image;
  const char* symbol;
  int arch;       // 10 * major + minor; 0: any, the driver knows
  char variant;   // 'a', 'f': this architecture alone
  bool portable;  // PTX: this architecture and every later one
  unsigned block[3];
  unsigned shared_bytes;
  unsigned cluster[3];
  bool multiply_grid, spread, cooperative, programmatic;
  const unsigned short* parameter_bytes;
  int parameters;
};

// A kernel compiled in one way, for several architectures.
struct Variant {
  const char* kernel;
  const char* name;
  int first, count;  // of kBinaries
};

struct Tables {
  const char* program;
  const Image* images;
  int image_count;
  const Binary* binaries;
  const Variant* variants;
  int variant_count;
  Image constants;  // no bytes: none
};

struct LoadedVariant {
  std::atomic<const Binary*> binary{nullptr};  // set last
  Function function = nullptr;
};

// What one context holds. Stays until the instance is destroyed.
struct Loaded {
  Context context = nullptr;
  unsigned long long id = 0;
  int arch = 0;
  int shared_bytes = 0;  // that a block may opt in to
  int l2_bytes = 0;
  std::mutex mutex;
  std::unique_ptr<LoadedVariant[]> variants;
  std::unique_ptr<Module[]> modules;
  std::atomic<DevicePointer> constants{0};
  Loaded* next = nullptr;
};

struct Instance {
  const Tables* tables = nullptr;
  std::string folder;
  int device = 0;
  std::mutex mutex;
  std::atomic<Loaded*> loaded{nullptr};
  Context primary = nullptr;  // retained
};

// Tells a context from an earlier one at the same address.
inline Result context_number(Context context, unsigned long long* id) {
  *id = reinterpret_cast<std::uintptr_t>(context);
  return driver().context_id == nullptr ? cuda::kSuccess : driver().context_id(context, id);
}

// The context of a call: the stream's, else the current one, else the device's primary one. Current for as
// long as this lives.
class ContextScope {
 public:
  ContextScope() = default;
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  ~ContextScope() {
    Context popped = nullptr;
    if (pushed_) (void)driver().context_pop(&popped);
  }

  int enter(Instance& instance, Stream stream) {
    const Driver& d = driver();
    if (d.why_not != nullptr) return fail(ATTUNE_WRAPPED_UNSUPPORTED, "%s", d.why_not);
    Context current = nullptr;
    if (const Result r = d.context_current(&current)) return driver_failed(r, "cuCtxGetCurrent");
    // 1 and 2 are the legacy and the per-thread default stream, of whichever context is current.
    if (reinterpret_cast<std::uintptr_t>(stream) > 2) {
      if (const Result r = d.stream_context(stream, &context_)) {
        return driver_failed(r, "asking for the context of the stream");
      }
    } else if (current != nullptr) {
      context_ = current;
    } else if (const int failed = primary(instance)) {
      return failed;
    }
    if (context_ == current) return ATTUNE_WRAPPED_OK;
    return enter(context_);
  }

  int enter(Context context) {
    context_ = context;
    if (const Result r = driver().context_push(context))
      return driver_failed(r, "cuCtxPushCurrent");
    pushed_ = true;
    return ATTUNE_WRAPPED_OK;
  }

  [[nodiscard]] Context context() const { return context_; }

 private:
  int primary(Instance& instance) {
    const std::lock_guard<std::mutex> lock(instance.mutex);
    if (instance.primary == nullptr) {
      Device device = 0;
      if (const Result r = driver().device_get(&device, instance.device)) {
        return driver_failed(r, "looking for the GPU of this number");
      }
      if (const Result r = driver().primary_retain(&instance.primary, device)) {
        instance.primary = nullptr;
        return driver_failed(r, "retaining the GPU's primary context");
      }
    }
    context_ = instance.primary;
    return ATTUNE_WRAPPED_OK;
  }

  Context context_ = nullptr;
  bool pushed_ = false;
};

inline Loaded* find_loaded(const Instance& instance, Context context, unsigned long long id) {
  Loaded* loaded = instance.loaded.load(std::memory_order_acquire);
  while (loaded != nullptr && (loaded->context != context || loaded->id != id)) {
    loaded = loaded->next;
  }
  return loaded;
}

// What the instance has in the current context; made when it is asked for first.
inline int enter_context(Instance& instance, Context context, Loaded** out) {
  unsigned long long id = 0;
  if (const Result r = context_number(context, &id)) return driver_failed(r, "cuCtxGetId");
  *out = find_loaded(instance, context, id);
  if (*out != nullptr) return ATTUNE_WRAPPED_OK;
  const std::lock_guard<std::mutex> lock(instance.mutex);
  *out = find_loaded(instance, context, id);
  if (*out != nullptr) return ATTUNE_WRAPPED_OK;
  Device device = 0;
  if (const Result r = driver().context_device(&device)) return driver_failed(r, "cuCtxGetDevice");
  std::unique_ptr<Loaded> made(new (std::nothrow) Loaded);
  if (made == nullptr) return fail(ATTUNE_WRAPPED_OUT_OF_MEMORY, "there is no memory");
  int major = 0, minor = 0;
  for (const auto& [attribute, value] : {std::pair<int, int*>{cuda::kAttributeMajor, &major},
                                         {cuda::kAttributeMinor, &minor},
                                         {cuda::kAttributeSharedPerBlock, &made->shared_bytes},
                                         {cuda::kAttributeL2Bytes, &made->l2_bytes}}) {
    if (const Result r = driver().device_attribute(value, attribute, device)) {
      return driver_failed(r, "asking for the GPU's attributes");
    }
  }
  made->context = context;
  made->id = id;
  made->arch = 10 * major + minor;
  made->variants.reset(new (
      std::nothrow) LoadedVariant[static_cast<std::size_t>(instance.tables->variant_count) + 1]);
  made->modules.reset(new (std::nothrow)
                          Module[static_cast<std::size_t>(instance.tables->image_count) + 1]());
  if (made->variants == nullptr || made->modules == nullptr) {
    return fail(ATTUNE_WRAPPED_OUT_OF_MEMORY, "there is no memory");
  }
  made->next = instance.loaded.load(std::memory_order_relaxed);
  *out = made.release();
  instance.loaded.store(*out, std::memory_order_release);
  return ATTUNE_WRAPPED_OK;
}

// Unloads everything. Contexts that are gone took theirs along.
inline void unload(Instance& instance) {
  Loaded* loaded = instance.loaded.load();
  while (loaded != nullptr) {
    const std::unique_ptr<Loaded> dying(loaded);
    loaded = dying->next;
    unsigned long long id = 0;
    if (context_number(dying->context, &id) != cuda::kSuccess || id != dying->id) continue;
    ContextScope scope;
    if (scope.enter(dying->context) != ATTUNE_WRAPPED_OK) continue;
    for (int i = 0; i < instance.tables->image_count; ++i) {
      if (dying->modules[static_cast<std::size_t>(i)] == nullptr) continue;
      (void)driver().module_unload(dying->modules[static_cast<std::size_t>(i)]);
    }
    if (const DevicePointer constants = dying->constants) (void)driver().release(constants);
  }
  Device device = 0;
  if (instance.primary != nullptr &&
      driver().device_get(&device, instance.device) == cuda::kSuccess) {
    (void)driver().primary_release(device);
  }
}

}  // namespace attune::wrapped
