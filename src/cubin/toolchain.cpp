#include "cubin/toolchain.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "cubin/nvcc.h"
#include "cubin/nvrtc.h"
#include "cubin/ptxas.h"
#include "io/no_throw.h"
#include "source/translation_unit.h"

namespace attune {

namespace {

// The second flag lets device code call the constexpr functions that it shares with the host, which
// carry no annotation; the third keeps warnings out of the log, where errors are looked for.
constexpr std::array kNvrtcFlags = {"-std=c++20", "--device-as-default-execution-space", "-w"};
constexpr std::array kNvccFlags = {"-std=c++20", "--expt-relaxed-constexpr", "-w"};

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

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The beginning of a compiler's log: one mistake in a header is repeated for every instantiation.
std::string shortened(const std::string& log) {
  constexpr int kMostLines = 40;
  std::size_t end = 0;
  for (int line = 0; line < kMostLines && end != std::string::npos; ++line) {
    end = log.find('\n', end == 0 ? 0 : end + 1);
  }
  return end == std::string::npos ? log : log.substr(0, end) + "\n...";
}

// What a compiler answered, with the id before its log, or with the facts of its cubin.
Expected<Cubin> checked(Expected<std::vector<std::byte>> bytes, const std::string& name,
                        const Target& target, const Toolchain& toolchain, double seconds) {
  if (!bytes.ok()) {
    return Status(bytes.status().code(),
                  fmt::format("{} does not compile for {} with {}:\n{}", name, to_string(target),
                              toolchain.version, shortened(bytes.status().message())));
  }
  const auto facts = read_facts(*bytes, kEntryName);
  if (!facts.ok()) {
    return Status(facts.status().code(),
                  fmt::format("{}: what {} made for {} {}", name, toolchain.version,
                              to_string(target), facts.status().message()));
  }
  return Cubin{*std::move(bytes), *facts, seconds};
}

// The assembler that makes what NVRTC would; null when there is none.
const PtxasProgram* ptxas_of(const Toolchain& toolchain) {
  if (toolchain.compiler != Compiler::nvrtc) return nullptr;
  const NvrtcLibrary* library = &*nvrtc_library();
  const Expected<PtxasProgram>& ptxas = ptxas_program(library->major, library->minor);
  return ptxas.ok() ? &*ptxas : nullptr;
}

// Targets of the same one share a front end.
int ptx_generation(const Target& target) {
  return target.arch < 90 ? 0 : target.arch < 100 ? 1 : 2;
}

Target first_of_generation(const std::vector<Target>& targets, const Target& like) {
  Target first = like;
  for (const Target& target : targets) {
    if (ptx_generation(target) == ptx_generation(like)) first = std::min(first, target);
  }
  return first;
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
    const auto start = Clock::now();
    std::vector<std::string> flags = flags_of(toolchain.compiler);
    flags.push_back("-arch=" + to_string(target));
    auto bytes = toolchain.compiler == Compiler::nvrtc ? nvrtc_compile(source, name + ".cu", flags)
                                                       : nvcc_compile(source, name + ".cu", flags);
    return checked(std::move(bytes), name, target, toolchain, seconds_since(start));
  });
}

std::vector<Expected<Cubin>> compile_for(const std::string& source, const std::string& name,
                                         const std::vector<Target>& targets,
                                         const Toolchain& toolchain) {
  std::vector<Expected<Cubin>> cubins;
  const PtxasProgram* ptxas = targets.size() > 1 ? ptxas_of(toolchain) : nullptr;
  if (ptxas == nullptr) {
    for (const Target& target : targets) cubins.push_back(compile(source, name, target, toolchain));
    return cubins;
  }
  struct Front {
    Expected<std::vector<std::byte>> ptx;
    double seconds;
  };
  std::map<int, Front> fronts;  // by generation
  for (const Target& target : targets) {
    auto front = fronts.find(ptx_generation(target));
    if (front == fronts.end()) {
      const auto start = Clock::now();
      std::vector<std::string> flags = flags_of(toolchain.compiler);
      flags.push_back("-arch=compute_" + std::to_string(first_of_generation(targets, target).arch));
      auto ptx =
          no_throw([&] { return nvrtc_compile(source, name + ".cu", flags, NvrtcOutput::ptx); });
      front =
          fronts.emplace(ptx_generation(target), Front{std::move(ptx), seconds_since(start)}).first;
    }
    cubins.push_back(no_throw([&, &front = front->second]() -> Expected<Cubin> {
      if (!front.ptx.ok()) return checked(front.ptx.status(), name, target, toolchain, 0);
      const auto back = Clock::now();
      auto bytes = ptxas_assemble(*ptxas, *front.ptx, target);
      // What compiling it alone would have taken.
      return checked(std::move(bytes), name, target, toolchain,
                     front.seconds + seconds_since(back));
    }));
  }
  return cubins;
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
