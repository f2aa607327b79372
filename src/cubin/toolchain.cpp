#include "cubin/toolchain.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <optional>
#include <system_error>

#include "cubin/nvcc.h"
#include "cubin/nvrtc.h"
#include "io/no_throw.h"
#include "source/translation_unit.h"

namespace attune {

namespace {

// The second flag lets device code call the constexpr functions that it shares with the host, which
// carry no annotation.
constexpr std::array kNvrtcFlags = {"-std=c++20", "--device-as-default-execution-space"};
constexpr std::array kNvccFlags = {"-std=c++20", "--expt-relaxed-constexpr"};

std::vector<std::string> flags_of(Compiler compiler) {
  const auto& flags = compiler == Compiler::nvrtc ? kNvrtcFlags : kNvccFlags;
  return {flags.begin(), flags.end()};
}

Expected<Toolchain> find_nvrtc() {
  const Expected<NvrtcLibrary>& library = nvrtc_library();
  if (!library.ok()) return library.status();
  // NVRTC does not tell its patch level; the size of its file tells builds apart.
  std::error_code error;
  const auto size = std::filesystem::file_size(library->path, error);
  return Toolchain{
      Compiler::nvrtc,
      fmt::format("NVRTC {}.{} ({} bytes)", library->major, library->minor, error ? 0 : size),
      library->path, library->targets};
}

Expected<Toolchain> find_nvcc() {
  const Expected<NvccProgram>& program = nvcc_program();
  if (!program.ok()) return program.status();
  return Toolchain{Compiler::nvcc, "nvcc " + program->release, program->path, program->targets};
}

}  // namespace

Expected<Toolchain> find_toolchain(Compiler compiler) {
  return no_throw([&] { return compiler == Compiler::nvrtc ? find_nvrtc() : find_nvcc(); });
}

std::string compile_flags(Compiler compiler) {
  return fmt::format("{}", fmt::join(flags_of(compiler), " "));
}

Expected<Cubin> compile(const std::string& source, const std::string& name, const Target& target,
                        const Toolchain& toolchain) {
  return no_throw([&]() -> Expected<Cubin> {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::string> flags = flags_of(toolchain.compiler);
    flags.push_back("-arch=" + to_string(target));
    auto bytes = toolchain.compiler == Compiler::nvrtc ? nvrtc_compile(source, name + ".cu", flags)
                                                       : nvcc_compile(source, name + ".cu", flags);
    if (!bytes.ok()) {
      return Status(bytes.status().code(),
                    fmt::format("{} does not compile for {} with {}:\n{}", name, to_string(target),
                                toolchain.version, bytes.status().message()));
    }
    const auto facts = read_facts(*bytes, kEntryName);
    if (!facts.ok()) {
      return Status(facts.status().code(),
                    fmt::format("{}: what {} made for {} {}", name, toolchain.version,
                                to_string(target), facts.status().message()));
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return Cubin{*std::move(bytes), *facts, seconds.count()};
  });
}

Expected<Target> target_for(const Toolchain& toolchain, int device) {
  std::optional<Target> best;
  for (const Target& target : toolchain.targets) {
    if (runs_on(target, device) && (!best || target.arch > best->arch)) best = target;
  }
  if (best) return *best;
  std::vector<std::string> known;
  for (const Target& target : toolchain.targets) known.push_back(to_string(target));
  return Status(Code::unsupported,
                fmt::format("{} compiles for no architecture that runs on sm_{}; it knows {}",
                            toolchain.version, device, fmt::join(known, ", ")));
}

}  // namespace attune
