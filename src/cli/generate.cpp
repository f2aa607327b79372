// `attune generate`: the kernel table as CUDA sources that compile by themselves.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "cli/command.h"
#include "cli/kernels.h"
#include "io/file.h"
#include "source/tree.h"

namespace attune::cli {
namespace {

struct GenerateOptions {
  std::string folder;
  std::string family;
  std::string arch;
};

Expected<std::vector<KernelSpec>> chosen(const GenerateOptions& options) {
  std::vector<KernelSpec> specs = gpu_rows();
  if (!options.family.empty()) {
    const auto family = gpu_family_from(options.family);
    if (!family.ok()) return family.status();
    std::erase_if(specs, [&](const KernelSpec& spec) { return spec.family != *family; });
  }
  if (!options.arch.empty()) {
    const auto target = target_named(options.arch);
    if (!target.ok()) return target.status();
    std::erase_if(specs, [&](const KernelSpec& spec) {
      const ArchRange range = spec.archs;
      return target->arch < range.begin || target->arch >= range.end;
    });
  }
  if (specs.empty()) {
    return Status(Code::unsupported,
                  fmt::format("no kernel of the table runs on {}", options.arch));
  }
  return specs;
}

int run(const GenerateOptions& options) {
  const auto specs = chosen(options);
  if (!specs.ok()) return refuse(specs.status());
  const std::filesystem::path root = options.folder;
  const std::vector<GeneratedFile> files = generate_tree(*specs);
  for (const GeneratedFile& file : files) {
    const std::filesystem::path path = root / file.path;
    std::error_code error;
    std::filesystem::create_directories(path.parent_path(), error);
    const std::span<const std::byte> bytes = std::as_bytes(std::span(file.text));
    if (const Status status = write_file(path, std::span(&bytes, 1)); !status.ok()) {
      return refuse(status);
    }
  }
  fmt::print("{} kernels in {} files below {}\n", specs->size(), files.size(), options.folder);
  return kOk;
}

}  // namespace

Command add_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* sub = app.add_subcommand("generate", "Write GPU kernels of the table as CUDA sources");
  sub->add_option("-o,--output", options->folder, "The folder to write to")->required();
  sub->add_option("--family", options->family, "Only this family, e.g. portable");
  sub->add_option("--arch", options->arch,
                  "Only kernels that run on this architecture, e.g. sm_86");
  sub->footer(
      "Example:\n  attune generate -o kernels\n  cd kernels && nvcc -std=c++20 "
      "--expt-relaxed-constexpr -I . -cubin -arch=sm_80 kernels/*.aligned.plain.*.cu");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
