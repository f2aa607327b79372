// ptxas, the assembler: it makes a cubin from PTX as NVRTC does inside, so that the front end need run
// only once for many architectures.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "cubin/target.h"

namespace attune {

struct PtxasProgram {
  std::string path;
  std::string release;  // "13.0.88"
};

// The first one of CUDA `major`.`minor` among the places that docs/cubin.md lists; remembered.
[[nodiscard]] const Expected<PtxasProgram>& ptxas_program(int major, int minor);

// Errors are the assembler's output alone.
[[nodiscard]] Expected<std::vector<std::byte>> ptxas_assemble(const PtxasProgram& ptxas,
                                                              std::span<const std::byte> ptx,
                                                              const Target& target);

}  // namespace attune
