#include "host/environment.h"

#include <array>
#include <cstdlib>

namespace attune {

namespace {

constexpr std::array kVariables = {
    EnvironmentVariable{"ATTUNE_CPU_ISA", "generic, avx2, avx512, avx512bf16 or amx",
                        "the highest instruction set that the CPU kernels may use"},
    EnvironmentVariable{"ATTUNE_JIT", "on or off",
                        "off forbids compiling GPU kernels at run time; a missing one is named"},
    EnvironmentVariable{"ATTUNE_BUNDLE", "a path",
                        "a bundle of compiled GPU kernels, looked into before any other"},
    EnvironmentVariable{"ATTUNE_CACHE_DIR", "a folder", "where compiled GPU kernels are kept"},
    EnvironmentVariable{"ATTUNE_CACHE_LIMIT", "bytes, with K, M or G; 0 for no disk cache",
                        "how large that folder may grow"},
    EnvironmentVariable{"ATTUNE_CUDA_DRIVER", "a path", "the CUDA driver's library, libcuda.so.1"},
    EnvironmentVariable{"ATTUNE_NVRTC", "a path", "the run-time compiler's library, libnvrtc.so"},
};

}  // namespace

std::span<const EnvironmentVariable> environment_variables() { return kVariables; }

std::optional<std::string> environment(std::string_view name) {
  const char* value = std::getenv(name.data());
  if (value == nullptr || *value == 0) return std::nullopt;
  return std::string(value);
}

}  // namespace attune
