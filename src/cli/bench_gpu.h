// `attune bench --device cuda`: how fast the CUDA kernels are here.
#pragma once

#include <attune/problem.hpp>
#include <string>
#include <vector>

namespace attune::cli {

struct GpuBenchOptions {
  std::vector<Problem> problems;  // empty: the standard list, bf16
  std::string json;               // a file, - for standard output, empty for none
  bool quick = false;
  bool check = true;  // the error of a small problem of each kind beside the speeds
};

[[nodiscard]] int bench_gpu(const GpuBenchOptions& options);

// Runs bench/gpu_peers.py, which times PyTorch's attention beside Attune's, in place of this process.
// Returns only when there is no python3 with PyTorch, or no script, and then says so.
[[nodiscard]] int bench_peers(const std::string& json, const std::string& plot);

}  // namespace attune::cli
