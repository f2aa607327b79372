#include "cli/machine.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <thread>

#ifndef ATTUNE_VERSION
#define ATTUNE_VERSION "unknown"
#endif
#ifndef ATTUNE_COMMIT
#define ATTUNE_COMMIT "unknown"
#endif

namespace attune::cli {
namespace {

std::string trim(std::string text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// Opens the first of `files` that exists. The handle stays open: driver libraries do not like to be
// unloaded, and the process ends soon.
void* open_first(std::initializer_list<const char*> files, std::string& found) {
  for (const char* file : files) {
    if (void* handle = dlopen(file, RTLD_LAZY | RTLD_LOCAL)) {
      found = file;
      return handle;
    }
  }
  return nullptr;
}

template <typename Function>
Function* symbol(void* handle, const char* name) {
  return reinterpret_cast<Function*>(dlsym(handle, name));
}

// Asks the driver for its version and its devices. Declared here rather than taken from cuda.h: the
// build needs no CUDA.
std::string driver_details(void* handle) {
  auto* init = symbol<int(unsigned)>(handle, "cuInit");
  auto* version = symbol<int(int*)>(handle, "cuDriverGetVersion");
  auto* count_of = symbol<int(int*)>(handle, "cuDeviceGetCount");
  auto* name_of = symbol<int(char*, int, int)>(handle, "cuDeviceGetName");
  if (!init || !version || !count_of || !name_of) return "not a CUDA driver: cuInit is missing";
  int number = 0;
  if (version(&number) != 0) return "does not tell its version";
  std::string text = fmt::format("CUDA {}.{}", number / 1000, number % 1000 / 10);
  if (const int error = init(0); error != 0) {
    return text + fmt::format(", but it finds no usable GPU (cuInit answers {})", error);
  }
  int devices = 0;
  if (count_of(&devices) != 0) devices = 0;
  for (int i = 0; i < devices; ++i) {
    char name[256] = {};
    if (name_of(name, sizeof(name) - 1, i) == 0) text += fmt::format(", GPU {}: {}", i, name);
  }
  return text;
}

std::string nvrtc_details(void* handle) {
  auto* version = symbol<int(int*, int*)>(handle, "nvrtcVersion");
  int major = 0;
  int minor = 0;
  if (!version || version(&major, &minor) != 0) return {};
  return fmt::format("CUDA {}.{}", major, minor);
}

}  // namespace

std::string library_version() { return ATTUNE_VERSION; }

std::string compiler_version() {
#if defined(__clang__)
  return fmt::format("clang++ {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#elif defined(__GNUC__)
  return fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#else
  return "unknown";
#endif
}

std::string source_commit() { return ATTUNE_COMMIT; }

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string key = trim(line.substr(0, colon));
    if (key == "model name" || key == "Model") return trim(line.substr(colon + 1));
  }
#if defined(__aarch64__)
  return "an aarch64 CPU that does not name itself";
#else
  return "a CPU that does not name itself";
#endif
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::vector<SharedLibrary> gpu_libraries() {
  SharedLibrary driver{.name = "libcuda",
                       .found = {},
                       .details = {},
                       .purpose = "the NVIDIA driver: launches kernels",
                       .package = "comes with the NVIDIA driver; on Debian: libcuda1 (non-free)"};
  if (void* handle = open_first({"libcuda.so.1", "libcuda.so"}, driver.found)) {
    driver.details = driver_details(handle);
  }
  SharedLibrary nvrtc{
      .name = "libnvrtc",
      .found = {},
      .details = {},
      .purpose = "the run-time compiler: compiles kernels on first use",
      .package = "pip install nvidia-cuda-nvrtc, or on Debian: nvidia-cuda-toolkit"};
  if (void* handle = open_first(
          {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"}, nvrtc.found)) {
    nvrtc.details = nvrtc_details(handle);
  }
  return {driver, nvrtc};
}

}  // namespace attune::cli
