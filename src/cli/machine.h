// What this machine and this build are, in words.
#pragma once

#include <string>
#include <vector>

namespace attune::cli {

[[nodiscard]] std::string library_version();   // "0.1.0"
[[nodiscard]] std::string compiler_version();  // "g++ 12.2.0"
[[nodiscard]] std::string source_commit();     // "unknown" when the build had no git

[[nodiscard]] std::string cpu_model();  // as the kernel names it
// Cores that this process may use: its affinity mask, not the whole machine.
[[nodiscard]] int usable_cores();

// A shared library that a GPU backend would open at run time.
struct SharedLibrary {
  std::string name;     // "libcuda"
  std::string found;    // the file name that opened; empty when none did
  std::string details;  // what it says about itself, e.g. the device's name; may be empty
  std::string purpose;
  std::string package;  // what to install where it is missing
};
[[nodiscard]] std::vector<SharedLibrary> gpu_libraries();

}  // namespace attune::cli
