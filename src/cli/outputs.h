// Room for the results of a call, and the files they end in.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "io/tensor.h"

namespace attune::cli {

// Allocates every output of `problem`, zero-filled, and points `arguments` at it. With `bhsd`, the
// ones of rank 4 lie in memory as [B, H, S, D].
[[nodiscard]] Expected<std::vector<Tensor>> allocate_outputs(const Problem& problem, bool bhsd,
                                                             Arguments& arguments);

// Nothing when results can be written to a file of this name; else why not.
[[nodiscard]] Status check_output_name(const std::filesystem::path& path);

// Writes the results: a .safetensors file takes all, a .npy file the first, and the others go to
// STEM_NAME.npy beside it. Returns the files written.
[[nodiscard]] Expected<std::vector<std::string>> write_outputs(const std::filesystem::path& path,
                                                               const std::vector<Tensor>& tensors);

}  // namespace attune::cli
