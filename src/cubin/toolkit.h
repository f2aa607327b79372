// Where the parts of the CUDA toolkit may lie: an installed toolkit, conda, or pip's packages.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace attune {

// Folders in which libraries (libnvrtc.so) are searched that the dynamic loader does not know.
[[nodiscard]] std::vector<std::filesystem::path> toolkit_library_folders();

// Paths of executable files of this name ("nvcc", "ptxas"), in the order in which they are preferred.
[[nodiscard]] std::vector<std::filesystem::path> toolkit_programs(std::string_view name);

}  // namespace attune
