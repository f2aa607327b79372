// The table of kernels, as data.
#pragma once

#include <attune/export.h>

#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <string>
#include <vector>

namespace attune {

// One row of the table, and whether this machine can run it.
struct KernelInfo {
  std::string id;      // "fwd.cpu.bf16.avx512bf16"
  std::string family;  // "cpu", "portable"
  Kind kind = Kind::forward;
  DType dtype = DType::f32;
  std::string isa;      // family cpu: its instruction set
  int arch_begin = 0;   // a GPU's: the first compute capability that runs it, as 10 * major + minor
  int arch_end = 0;     //   and the first that no longer does; 0 when all later ones do
  std::string missing;  // why this machine can't run it; empty when it can
};

// Every row in order of preference: the first that serves a Problem is used. Asks the driver which
// GPUs there are.
[[nodiscard]] ATTUNE_API std::vector<KernelInfo> list_kernels();

}  // namespace attune
