#include "cubin/ptxas.h"

#include <fmt/format.h>

#include "cubin/process.h"
#include "cubin/toolkit.h"
#include "io/file.h"

namespace attune {

namespace {

Expected<PtxasProgram> find(int major, int minor) {
  const std::string wanted = fmt::format(", V{}.{}.", major, minor);
  for (const std::filesystem::path& path : toolkit_programs("ptxas")) {
    const auto version = run_process({path.string(), "--version"});
    if (!version.ok()) continue;
    const std::size_t at = version->output.find(wanted);
    if (at == std::string::npos) continue;
    const std::size_t begin = at + 3;
    const std::size_t end = version->output.find_first_not_of("0123456789.", begin);
    return PtxasProgram{path.string(), version->output.substr(begin, end - begin)};
  }
  return Status(Code::unsupported, fmt::format("there is no ptxas {}.{}", major, minor));
}

}  // namespace

const Expected<PtxasProgram>& ptxas_program(int major, int minor) {
  // There is one NVRTC in a process, so the first question is the only one.
  static const Expected<PtxasProgram> program = find(major, minor);
  return program;
}

Expected<std::vector<std::byte>> ptxas_assemble(const PtxasProgram& ptxas,
                                                std::span<const std::byte> ptx,
                                                const Target& target) {
  const TemporaryFolder folder;
  if (!folder.status().ok()) return folder.status();
  const auto input = folder.path() / "kernel.ptx";
  const auto output = folder.path() / "kernel.cubin";
  if (Status status = write_file(input, std::span(&ptx, 1)); !status.ok()) return status;
  return run_compiler(
      {ptxas.path, "-arch=" + to_string(target), input.string(), "-o", output.string()}, output);
}

}  // namespace attune
