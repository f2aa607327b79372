// What this machine and this build are, in words.
#pragma once

#include <attune/status.hpp>
#include <string>
#include <vector>

#include "host/device_facts.h"

namespace attune::cli {

[[nodiscard]] std::string library_version();   // "0.1.0"
[[nodiscard]] std::string compiler_version();  // "g++ 12.2.0"
[[nodiscard]] std::string source_commit();     // "unknown" when the build had no git

[[nodiscard]] std::string cpu_model();  // as the kernel names it
// Cores that this process may use: its affinity mask, not the whole machine.
[[nodiscard]] int usable_cores();

// A shared library that is opened at run time to use a GPU.
struct SharedLibrary {
  std::string name;     // "libcuda"
  std::string found;    // the file that opened; empty when none did
  std::string details;  // its version, or why it is of no use
  std::string purpose;
  std::string package;  // what to install where it is missing
};
[[nodiscard]] std::vector<SharedLibrary> gpu_libraries();

// What the driver says about each GPU.
[[nodiscard]] std::vector<Expected<DeviceFacts>> gpus();

}  // namespace attune::cli
