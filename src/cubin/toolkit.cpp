#include "cubin/toolkit.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "host/environment.h"

namespace attune {

namespace {

namespace fs = std::filesystem;

// Folders named `prefix`* below `folder`.
std::vector<fs::path> folders_below(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().starts_with(prefix)) found.push_back(it->path());
  }
  std::sort(found.rbegin(), found.rend());  // the newest Python first
  return found;
}

std::vector<fs::path> toolkits() {
  std::vector<fs::path> roots;
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const auto root = environment(variable)) roots.emplace_back(*root);
  }
  roots.emplace_back("/usr/local/cuda");
  return roots;
}

// What pip's packages nvidia-cuda-nvrtc and nvidia-cuda-nvcc (13) and their predecessors of CUDA 12
// unpack to.
std::vector<fs::path> python_packages() {
  std::vector<fs::path> packages;
  // Beside this library, where it is part of a Python package itself.
  Dl_info self{};
  if (dladdr(reinterpret_cast<const void*>(&toolkit_programs), &self) != 0 && self.dli_fname) {
    packages.push_back(fs::path(self.dli_fname).parent_path().parent_path());
  }
  std::vector<fs::path> prefixes;
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const auto root = environment(variable)) prefixes.emplace_back(*root);
  }
  if (const auto home = environment("HOME")) prefixes.push_back(fs::path(*home) / ".local");
  prefixes.emplace_back("/usr/local");
  prefixes.emplace_back("/usr");
  for (const fs::path& prefix : prefixes) {
    for (const fs::path& python : folders_below(prefix / "lib", "python3")) {
      packages.push_back(python / "site-packages");
      packages.push_back(python / "dist-packages");
    }
  }
  return packages;
}

}  // namespace

std::vector<fs::path> toolkit_library_folders() {
  std::vector<fs::path> folders;
  for (const fs::path& root : toolkits()) folders.push_back(root / "lib64");
  if (const auto conda = environment("CONDA_PREFIX")) folders.push_back(fs::path(*conda) / "lib");
  for (const fs::path& packages : python_packages()) {
    folders.push_back(packages / "nvidia" / "cu13" / "lib");
    folders.push_back(packages / "nvidia" / "cuda_nvrtc" / "lib");
  }
  return folders;
}

std::vector<fs::path> toolkit_programs(std::string_view name) {
  std::vector<fs::path> folders;
  for (const fs::path& root : toolkits()) folders.push_back(root / "bin");
  const std::string path = environment("PATH").value_or("");
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    // A relative folder would make the compiler depend on where the program was started.
    if (path[at] == '/') folders.emplace_back(path.substr(at, end - at));
    at = end + 1;
  }
  for (const fs::path& packages : python_packages()) {
    folders.push_back(packages / "nvidia" / "cu13" / "bin");
    folders.push_back(packages / "nvidia" / "cuda_nvcc" / "bin");
  }
  std::vector<fs::path> programs;
  for (const fs::path& folder : folders) {
    fs::path program = folder / name;
    std::error_code error;
    if (fs::is_regular_file(program, error) && ::access(program.c_str(), X_OK) == 0) {
      programs.push_back(std::move(program));
    }
  }
  return programs;
}

}  // namespace attune
