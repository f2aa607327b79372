#include "launch/driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "host/environment.h"

namespace attune::cuda {

namespace {

// Never closed: drivers do not like to be unloaded.
void* open_library(std::string& path, std::string& why) {
  if (const auto chosen = environment("ATTUNE_CUDA_DRIVER")) {
    path = *chosen;
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) why = fmt::format("ATTUNE_CUDA_DRIVER={}: {}", path, dlerror());
    return handle;
  }
  for (const char* name : {"libcuda.so.1", "libcuda.so"}) {
    path = name;
    if (void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return handle;
    if (why.empty()) why = dlerror();
  }
  return nullptr;
}

template <typename Pointer>
void take(void* handle, const char* symbol, Pointer& pointer, std::string& missing) {
  pointer = reinterpret_cast<Pointer>(dlsym(handle, symbol));
  if (pointer == nullptr && missing.empty()) missing = symbol;
}

Expected<const Driver*> open_driver() {
  static Driver table;
  std::string why;
  void* handle = open_library(table.path, why);
  if (handle == nullptr) {
    return Status{Code::unsupported,
                  fmt::format("there is no CUDA driver here ({}); it comes with the NVIDIA driver, "
                              "on Debian: libcuda1",
                              why)};
  }
  std::string missing;
#define ATTUNE_CUDA_TAKE(member, symbol, parameters) take(handle, symbol, table.member, missing);
  ATTUNE_CUDA_ENTRY_POINTS(ATTUNE_CUDA_TAKE)
#undef ATTUNE_CUDA_TAKE
  if (table.driver_version != nullptr) table.driver_version(&table.version);
  if (!missing.empty()) {
    return Status{
        Code::unsupported,
        fmt::format("{} (CUDA {}.{}) has no {}; Attune needs the driver of CUDA 12 or "
                    "later",
                    table.path, table.version / 1000, table.version % 1000 / 10, missing)};
  }
  std::string optional;
  take(handle, "cuCtxGetId", table.context_id, optional);
  take(handle, "cuTensorMapEncodeTiled", table.tensor_map, optional);
  if (const Result result = table.init(0); result != kSuccess) {
    const Status status = status_of(table, result, "cuInit");
    return Status{Code::unsupported,
                  fmt::format("{} finds no GPU to drive: {}", table.path, status.message())};
  }
  return &table;
}

Code code_of(Result result) {
  switch (result) {
    case kErrorOutOfMemory:
      return Code::out_of_memory;
    case kErrorInvalidHandle:
    case kErrorInvalidContext:
    case kErrorInvalidDevice:
      return Code::invalid_argument;
    default:
      return Code::device_error;
  }
}

}  // namespace

const Expected<const Driver*>& driver() {
  static const Expected<const Driver*> opened = open_driver();
  return opened;
}

Status status_of(const Driver& driver, Result result, std::string_view doing) {
  if (result == kSuccess) return {};
  const char* name = nullptr;
  const char* text = nullptr;
  if (driver.error_name(result, &name) != kSuccess || name == nullptr) name = "an unknown error";
  if (driver.error_string(result, &text) != kSuccess || text == nullptr) text = "no description";
  return {code_of(result), fmt::format("{}: {} ({}, error {})", doing, name, text, result)};
}

}  // namespace attune::cuda
