#include "cubin/nvcc.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include "cubin/process.h"
#include "cubin/toolkit.h"
#include "io/file.h"
#include "source/device_headers.h"

namespace attune {

namespace {

namespace fs = std::filesystem;

// "Cuda compilation tools, release 13.0, V13.0.88" -> "13.0.88"
std::string release_in(const std::string& text) {
  constexpr std::string_view kMark = ", V";
  const std::size_t mark = text.find(kMark);
  if (mark == std::string::npos) return {};
  const std::size_t begin = mark + kMark.size();
  return text.substr(begin, text.find_first_not_of("0123456789.", begin) - begin);
}

// "sm_75\nsm_80\n..."; "compute_75\n..." comes from another option.
std::vector<Target> targets_in(const std::string& text) {
  std::vector<Target> targets;
  for (std::size_t at = text.find("sm_"); at != std::string::npos; at = text.find("sm_", at + 1)) {
    const std::size_t end = std::min(text.find_first_of(" \r\n", at), text.size());
    const auto target = target_from(std::string_view(text).substr(at, end - at));
    if (target && target->variant == 0) targets.push_back(*target);
  }
  std::sort(targets.begin(), targets.end());
  return targets;
}

Expected<NvccProgram> find() {
  for (const fs::path& path : toolkit_programs("nvcc")) {
    const auto version = run_process({path.string(), "--version"});
    const auto codes = run_process({path.string(), "--list-gpu-code"});
    if (!version.ok() || !codes.ok()) continue;
    NvccProgram program{path.string(), release_in(version->output), targets_in(codes->output)};
    if (!program.release.empty() && !program.targets.empty()) return program;
  }
  return Status(Code::unsupported,
                "there is no nvcc in CUDA_HOME, CUDA_PATH, /usr/local/cuda, PATH or a package of "
                "pip. Install the CUDA toolkit, or compile with NVRTC");
}

Status write_text(const fs::path& path, std::string_view text) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  const std::span<const std::byte> part = std::as_bytes(std::span(text));
  return write_file(path, std::span(&part, 1));
}

}  // namespace

const Expected<NvccProgram>& nvcc_program() {
  static const Expected<NvccProgram> program = find();
  return program;
}

Expected<std::vector<std::byte>> nvcc_compile(const std::string& source,
                                              const std::string& file_name,
                                              const std::vector<std::string>& flags) {
  const TemporaryFolder folder;
  if (!folder.status().ok()) return folder.status();
  for (const DeviceHeader& header : headers_of(source)) {
    if (Status status = write_text(folder.path() / "include" / header.name, header.text);
        !status.ok()) {
      return status;
    }
  }
  const fs::path unit = folder.path() / file_name;
  if (Status status = write_text(unit, source); !status.ok()) return status;
  const fs::path cubin = folder.path() / "kernel.cubin";
  std::vector<std::string> arguments = {nvcc_program()->path, "-cubin"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  arguments.insert(arguments.end(), {"-I", (folder.path() / "include").string(), "-o",
                                     cubin.string(), unit.string()});
  return run_compiler(arguments, cubin);
}

}  // namespace attune
