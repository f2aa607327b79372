// Files of tensors, by extension: .safetensors holds any number of named ones, .npy exactly one.
#pragma once

#include <attune/status.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "io/tensor.h"

namespace attune {

// The tensors of a file, in the order in which it stores them. The tensor of a .npy file has the
// file's stem as its name ("q" for "dir/q.npy"). Every error begins with the path.
[[nodiscard]] Expected<std::vector<Tensor>> read_tensors(const std::filesystem::path& path);

// Replaces the file in one step; after a failure the old file is as it was and nothing is left
// behind. .npy takes exactly one tensor, and keeps neither its name nor the metadata.
[[nodiscard]] Status write_tensors(const std::filesystem::path& path,
                                   const std::vector<Tensor>& tensors,
                                   const Metadata& metadata = {});

}  // namespace attune
