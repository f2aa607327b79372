// What rows of all GPU families have in common.
#pragma once

#include "spec/kernel_spec.h"

namespace attune {

struct GpuRow {
  int head_dim = 0, value_dim = 0;  // largest d and dv; 0: unbounded
  bool aligned = false;             // rows of tensors start at multiples of 16 bytes, unit stride
  bool bias = false, dropout = false, general = false;
  int queries = 0, keys = 0;  // a tile
  int stages = 0;
  int threads = 0;
  int blocks = 1;        // that share a multiprocessor
  int shared_bytes = 0;  // dynamic, of a block
};

// Precondition: not of family cpu.
[[nodiscard]] GpuRow gpu_row_of(const KernelSpec& spec);

}  // namespace attune
