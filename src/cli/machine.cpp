#include "cli/machine.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <thread>

#include "cubin/nvrtc.h"
#include "launch/device.h"

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

std::string say_version(int number) {
  return fmt::format("CUDA {}.{}", number / 1000, number % 1000 / 10);
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
  if (const auto& opened = cuda::driver(); opened.ok()) {
    driver.found = (*opened)->path;
    driver.details = say_version((*opened)->version);
  } else {
    driver.details = opened.status().message();
  }
  SharedLibrary nvrtc{
      .name = "libnvrtc",
      .found = {},
      .details = {},
      .purpose = "the run-time compiler: compiles kernels on first use",
      .package = "pip install nvidia-cuda-nvrtc, or on Debian: nvidia-cuda-toolkit"};
  if (const auto& opened = nvrtc_library(); opened.ok()) {
    nvrtc.found = opened->path;
    nvrtc.details = fmt::format("CUDA {}.{}", opened->major, opened->minor);
  } else {
    nvrtc.details = opened.status().message();
  }
  return {driver, nvrtc};
}

std::vector<Expected<DeviceFacts>> gpus() {
  std::vector<Expected<DeviceFacts>> found;
  const Expected<int> count = cuda::device_count();
  for (int index = 0; count.ok() && index < *count; ++index) {
    found.push_back(cuda::facts_of_device(index));
  }
  return found;
}

}  // namespace attune::cli
