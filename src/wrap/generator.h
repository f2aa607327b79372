// Program -> package: a header, a source, what builds them, and the files that they load.
#pragma once

#include <attune/status.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "wrap/program.h"

namespace attune::wrap {

struct GenerateOptions {
  bool cpu = false;        // attention and functions run on the CPU, kernels by their fallbacks
  bool embed = false;      // compiled kernels and constants become part of the program
  bool checks = true;      // of tensors at each call; sizes are read in any case
  std::vector<int> archs;  // GPUs for which attention is compiled in: 10 * major + minor
};

struct PackageFile {
  std::string path;  // below the package's folder
  std::string bytes;
};

// The same program gives the same bytes. Precondition: check_program() is ok. Errors begin with the line.
[[nodiscard]] Expected<std::vector<PackageFile>> generate(const Program& program,
                                                          const GenerateOptions& options);

// Sources of the user's functions, which go into the package as they are.
[[nodiscard]] Expected<std::vector<PackageFile>> user_files(const Program& program,
                                                            const std::filesystem::path& folder,
                                                            bool cpu);

// Writes them below `folder`, which is made if need be; other files there are left alone.
[[nodiscard]] Status write_package(const std::vector<PackageFile>& files,
                                   const std::filesystem::path& folder);

}  // namespace attune::wrap
