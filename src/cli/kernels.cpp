#include "cli/kernels.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>

#include "cli/options.h"

namespace attune::cli {

std::vector<KernelSpec> gpu_rows() {
  std::vector<KernelSpec> rows;
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family != Family::cpu) rows.push_back(spec);
  }
  return rows;
}

Expected<Family> gpu_family_from(std::string_view name) {
  if (name == "portable") return Family::portable;
  if (name == "hopper") return Family::hopper;
  return Status(
      Code::invalid_argument,
      fmt::format("\"{}\" is no family of GPU kernels; there are portable and hopper", name));
}

Expected<KernelSpec> gpu_row(std::string_view id) {
  const auto spec = spec_from(id);
  if (!spec) {
    return Status(Code::invalid_argument,
                  fmt::format("\"{}\" is no kernel's id; `attune list` names them all", id));
  }
  if (spec->family == Family::cpu) {
    return Status(Code::invalid_argument,
                  fmt::format("{} is a CPU kernel: it is part of the library already", id));
  }
  return *spec;
}

Expected<std::vector<KernelSpec>> read_catalog(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Status(Code::io_error, path + ": cannot be opened");
  std::vector<KernelSpec> specs;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line.resize(std::min(line.find('#'), line.size()));
    const auto begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos) continue;
    line = line.substr(begin, line.find_last_not_of(" \t\r") + 1 - begin);
    const auto spec = gpu_row(line);
    if (!spec.ok()) {
      return Status(spec.status().code(),
                    fmt::format("{}, line {}: {}", path, number, spec.status().message()));
    }
    if (std::find(specs.begin(), specs.end(), *spec) == specs.end()) specs.push_back(*spec);
  }
  if (specs.empty()) return Status(Code::invalid_argument, path + " names no kernel");
  return specs;
}

Expected<Target> target_named(std::string_view name) {
  const auto target = target_from(name);
  if (target) return *target;
  return Status(Code::invalid_argument,
                fmt::format("\"{}\" is no architecture; one looks like sm_80 or sm_90a", name));
}

Expected<std::vector<Target>> targets_from(std::string_view text, const Toolchain& toolchain) {
  if (text == "all") return toolchain.targets;
  std::vector<Target> targets;
  for (const std::string& name : split(text, ',')) {
    const auto target = target_named(name);
    if (!target.ok()) return target.status();
    // A toolchain does not list its architectures' variants.
    if (std::none_of(toolchain.targets.begin(), toolchain.targets.end(),
                     [&](const Target& known) { return known.arch == target->arch; })) {
      std::vector<std::string> known;
      for (const Target& one : toolchain.targets) known.push_back(to_string(one));
      return Status(Code::unsupported,
                    fmt::format("{} does not know {}; it knows {}", toolchain.version, name,
                                fmt::join(known, ", ")));
    }
    if (std::find(targets.begin(), targets.end(), *target) == targets.end()) {
      targets.push_back(*target);
    }
  }
  if (targets.empty()) return Status(Code::invalid_argument, "no architecture was named");
  std::sort(targets.begin(), targets.end());
  return targets;
}

Expected<Compiler> compiler_from(std::string_view name) {
  if (name == "nvrtc") return Compiler::nvrtc;
  if (name == "nvcc") return Compiler::nvcc;
  return Status(Code::invalid_argument,
                fmt::format("\"{}\" is no compiler; there are nvrtc and nvcc", name));
}

}  // namespace attune::cli
