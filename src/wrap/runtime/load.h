// Kernels and constants are loaded once a context, when they are first needed or by prepare().
#pragma once

#include <cinttypes>
#include <cstdio>
#include <memory>
#include <new>

#include "wrap/runtime/instance.h"

namespace attune::wrapped {

// Loading may allocate and synchronise, which another stream's capture forbids to a thread unless it says
// that it knows what it does. A module is no part of any graph.
class RelaxedCapture {
 public:
  RelaxedCapture() { active_ = driver().exchange_capture_mode(&mode_) == cuda::kSuccess; }
  ~RelaxedCapture() {
    if (active_) (void)driver().exchange_capture_mode(&mode_);
  }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  int mode_ = cuda::kCaptureRelaxed;
  bool active_ = false;
};

inline bool runs_on(const Binary& binary, int arch) {
  if (binary.arch == 0) return true;
  if (binary.variant != 0) return binary.arch == arch;
  if (binary.portable) return binary.arch <= arch;
  return binary.arch / 10 == arch / 10 && binary.arch <= arch;
}

// Machine code before PTX, and the latest of each.
inline const Binary* choose_binary(const Tables& tables, const Variant& variant, int arch) {
  const Binary* best = nullptr;
  const auto rank = [](const Binary& b) {
    return (b.portable ? 0 : 1 << 20) + 2 * b.arch + (b.variant != 0 ? 1 : 0);
  };
  for (int i = variant.first; i < variant.first + variant.count; ++i) {
    const Binary& binary = tables.binaries[i];
    if (!runs_on(binary, arch)) continue;
    if (best == nullptr || rank(binary) > rank(*best)) best = &binary;
  }
  return best;
}

// Whether there is code for the GPU.
inline bool serves(const Instance& instance, const Loaded& loaded, int variant) {
  return choose_binary(*instance.tables, instance.tables->variants[variant], loaded.arch) !=
         nullptr;
}

inline int no_binary(const Tables& tables, const Variant& variant, int arch) {
  char list[256] = {};
  std::size_t used = 0;
  for (int i = variant.first; i < variant.first + variant.count; ++i) {
    const Binary& binary = tables.binaries[i];
    const char letter[2] = {binary.variant, 0};
    const int written =
        std::snprintf(list + used, sizeof(list) - used, "%s%s%d%s", used > 0 ? ", " : "",
                      binary.portable ? "PTX for sm_" : "sm_", binary.arch, letter);
    if (written > 0) used += static_cast<std::size_t>(written);
    if (used >= sizeof(list)) used = sizeof(list) - 1;
  }
  return fail(ATTUNE_WRAPPED_UNSUPPORTED,
              "kernel %s, %s: the GPU is sm_%d, and there is code for %s", variant.kernel,
              variant.name, arch, list);
}

// Holds the kernel's parameters against what the program will hand over.
inline int check_parameters(const Binary& binary, Function function) {
  if (driver().parameter_info == nullptr) return ATTUNE_WRAPPED_OK;
  for (int i = 0; i <= binary.parameters; ++i) {
    std::size_t offset = 0, bytes = 0;
    const Result result =
        driver().parameter_info(function, static_cast<std::size_t>(i), &offset, &bytes);
    const bool there = result == cuda::kSuccess;
    if (!there && result != cuda::kErrorInvalidValue) {
      return driver_failed(result, "asking for the kernel's parameters");
    }
    if (i == binary.parameters) {
      if (!there) break;
      return fail(ATTUNE_WRAPPED_IO_ERROR, "its code takes more than the %d parameters expected",
                  binary.parameters);
    }
    if (!there) {
      return fail(ATTUNE_WRAPPED_IO_ERROR, "its code takes %d parameters, expected %d", i,
                  binary.parameters);
    }
    if (bytes != binary.parameter_bytes[i]) {
      return fail(ATTUNE_WRAPPED_IO_ERROR, "parameter %d has %zu bytes in its code, expected %d", i,
                  bytes, static_cast<int>(binary.parameter_bytes[i]));
    }
  }
  return ATTUNE_WRAPPED_OK;
}

inline int set_attributes(const Loaded& loaded, const Binary& binary, Function function) {
  int threads = 0, fixed = 0;
  if (const Result r = driver().function_attribute(&threads, cuda::kFunctionMaxThreads, function)) {
    return driver_failed(r, "asking for the kernel's largest block");
  }
  const unsigned block = binary.block[0] * binary.block[1] * binary.block[2];
  if (block > static_cast<unsigned>(threads)) {
    return fail(ATTUNE_WRAPPED_UNSUPPORTED,
                "it is launched with blocks of %u threads, and its code "
                "allows %d",
                block, threads);
  }
  if (const Result r = driver().function_attribute(&fixed, cuda::kFunctionStaticShared, function)) {
    return driver_failed(r, "asking for the kernel's shared memory");
  }
  const int most = loaded.shared_bytes - fixed;
  if (static_cast<int>(binary.shared_bytes) > most) {
    return fail(ATTUNE_WRAPPED_UNSUPPORTED,
                "it needs %u bytes of shared memory a block, and the GPU offers %d",
                binary.shared_bytes, most);
  }
  constexpr unsigned kWithoutAsking = 48 * 1024;
  if (binary.shared_bytes > kWithoutAsking) {
    if (const Result r = driver().set_function_attribute(function, cuda::kFunctionDynamicShared,
                                                         static_cast<int>(binary.shared_bytes))) {
      return driver_failed(r, "asking for its shared memory");
    }
  }
  constexpr unsigned kPortableCluster = 8;
  if (binary.cluster[0] * binary.cluster[1] * binary.cluster[2] > kPortableCluster) {
    if (const Result r =
            driver().set_function_attribute(function, cuda::kFunctionNonPortableCluster, 1)) {
      return driver_failed(r, "asking for its clusters");
    }
  }
  return ATTUNE_WRAPPED_OK;
}

// The caller holds the lock. What was loaded in vain is given back.
inline int load_variant(const Instance& instance, Loaded& loaded, int index) {
  const Tables& tables = *instance.tables;
  const Variant& variant = tables.variants[index];
  const Binary* binary = choose_binary(tables, variant, loaded.arch);
  if (binary == nullptr) return no_binary(tables, variant, loaded.arch);
  const auto failed = [&](int code) {
    char where[256];
    std::snprintf(where, sizeof(where), "kernel %s, %s, %s of %s", variant.kernel, variant.name,
                  binary->symbol, tables.images[binary->image].file);
    return fail_in(where, code);
  };
  const RelaxedCapture relaxed;
  Module& module = loaded.modules[static_cast<std::size_t>(binary->image)];
  const bool fresh = module == nullptr;
  if (fresh) {
    FileBytes own;
    const char* bytes = nullptr;
    if (const int code = image_bytes(instance.folder, tables.images[binary->image], own, &bytes)) {
      return failed(code);
    }
    if (const Result r = driver().module_load(&module, bytes)) {
      module = nullptr;
      return failed(driver_failed(r, "loading the file"));
    }
  }
  const auto take_back = [&](int code) {
    if (fresh) {
      (void)driver().module_unload(module);
      module = nullptr;
    }
    return failed(code);
  };
  Function function = nullptr;
  if (const Result r = driver().module_function(&function, module, binary->symbol)) {
    return take_back(driver_failed(r, "looking the kernel up"));
  }
  if (const int code = check_parameters(*binary, function)) return take_back(code);
  if (const int code = set_attributes(loaded, *binary, function)) return take_back(code);
  LoadedVariant& place = loaded.variants[static_cast<std::size_t>(index)];
  place.function = function;
  place.binary.store(binary, std::memory_order_release);
  return ATTUNE_WRAPPED_OK;
}

inline int find_variant(const Instance& instance, Loaded& loaded, int index,
                        const LoadedVariant** out) {
  LoadedVariant& place = loaded.variants[static_cast<std::size_t>(index)];
  *out = &place;
  if (place.binary.load(std::memory_order_acquire) != nullptr) return ATTUNE_WRAPPED_OK;
  const std::lock_guard<std::mutex> lock(loaded.mutex);
  if (place.binary.load(std::memory_order_relaxed) != nullptr) return ATTUNE_WRAPPED_OK;
  return load_variant(instance, loaded, index);
}

// Copies the constants to the device, on a stream of their own that no capture minds.
inline int upload(const Image& image, const char* bytes, DevicePointer* out) {
  const Driver& d = driver();
  DevicePointer memory = 0;
  Stream stream = nullptr;
  if (const Result r = d.allocate(&memory, image.bytes)) {
    return driver_failed(r, "memory for the constants");
  }
  Result result = d.stream_create(&stream, cuda::kStreamNonBlocking);
  if (result == cuda::kSuccess) {
    result = d.to_device_async(memory, bytes, image.bytes, stream);
    const Result waited = d.stream_synchronize(stream);
    if (result == cuda::kSuccess) result = waited;
    (void)d.stream_destroy(stream);
  }
  if (result != cuda::kSuccess) {
    (void)d.release(memory);
    return driver_failed(result, "copying the constants");
  }
  *out = memory;
  return ATTUNE_WRAPPED_OK;
}

inline int load_constants(const Instance& instance, Loaded& loaded) {
  const Image& image = instance.tables->constants;
  if (image.bytes == 0 || loaded.constants.load(std::memory_order_acquire) != 0) {
    return ATTUNE_WRAPPED_OK;
  }
  const std::lock_guard<std::mutex> lock(loaded.mutex);
  if (loaded.constants.load(std::memory_order_relaxed) != 0) return ATTUNE_WRAPPED_OK;
  const RelaxedCapture relaxed;
  FileBytes own;
  const char* bytes = nullptr;
  if (const int code = image_bytes(instance.folder, image, own, &bytes)) return code;
  DevicePointer memory = 0;
  if (const int code = upload(image, bytes, &memory)) return code;
  loaded.constants.store(memory, std::memory_order_release);
  return ATTUNE_WRAPPED_OK;
}

// All that the GPU of the context can run.
inline int load_everything(const Instance& instance, Loaded& loaded) {
  if (const int code = load_constants(instance, loaded)) return code;
  for (int i = 0; i < instance.tables->variant_count; ++i) {
    const LoadedVariant* unused = nullptr;
    if (!serves(instance, loaded, i)) continue;
    if (const int code = find_variant(instance, loaded, i, &unused)) return code;
  }
  return ATTUNE_WRAPPED_OK;
}

}  // namespace attune::wrapped
