// nvcc, the ahead-of-time compiler, run as a program of its own.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "cubin/target.h"

namespace attune {

struct NvccProgram {
  std::string path;
  std::string release;  // "13.0.88"
  std::vector<Target> targets;
};

// Looked for on the first call: CUDA_HOME, CUDA_PATH, /usr/local/cuda, PATH, the packages of pip.
[[nodiscard]] const Expected<NvccProgram>& nvcc_program();

// Precondition: nvcc_program() is ok. Errors are the compiler's output alone.
[[nodiscard]] Expected<std::vector<std::byte>> nvcc_compile(const std::string& source,
                                                            const std::string& file_name,
                                                            const std::vector<std::string>& flags);

}  // namespace attune
