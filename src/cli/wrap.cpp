// `attune wrap`: a program of compiled kernels and attention as C++ that stands alone.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <algorithm>
#include <filesystem>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/kernels.h"
#include "cli/wrap_check.h"
#include "wrap/generator.h"
#include "wrap/program_reader.h"

namespace attune::cli {
namespace {

struct WrapOptions {
  std::string program;
  std::string output;
  std::string device = "cuda";
  std::string archs;
  bool embed = false;
  bool no_checks = false;
  std::string recording;
  double tolerance = 0;
};

// Named ones, else those that the program's own kernels are compiled for.
Expected<std::vector<int>> archs_for(const WrapOptions& options, const wrap::Program& program) {
  std::set<int> archs;
  for (std::size_t at = 0; at < options.archs.size();) {
    const std::size_t end = std::min(options.archs.find(',', at), options.archs.size());
    const auto target = target_named(options.archs.substr(at, end - at));
    if (!target.ok()) return target.status();
    archs.insert(target->arch);
    at = end + 1;
  }
  if (archs.empty()) {
    for (const wrap::Kernel& kernel : program.kernels) {
      for (const wrap::Configuration& configuration : kernel.configurations) {
        for (const wrap::Binary& binary : configuration.binaries) {
          if (binary.form == wrap::BinaryForm::cubin) archs.insert(binary.target.arch);
        }
      }
    }
  }
  return std::vector<int>(archs.begin(), archs.end());
}

int run(const WrapOptions& options) {
  if (options.device != "cuda" && options.device != "cpu") {
    return bad_usage(fmt::format("--device is cuda or cpu, not {}", options.device));
  }
  const std::filesystem::path path = options.program;
  const auto program = wrap::read_program(path);
  if (!program.ok()) return refuse(program.status());
  wrap::GenerateOptions how;
  how.cpu = options.device == "cpu";
  how.embed = options.embed;
  how.checks = !options.no_checks;
  auto archs = archs_for(options, *program);
  if (!archs.ok()) return refuse(archs.status());
  how.archs = *std::move(archs);
  const auto in_program = [&](const Status& status) {
    return refuse({status.code(), fmt::format("{}:{}", path.string(), status.message())});
  };
  auto files = wrap::generate(*program, how);
  if (!files.ok()) return in_program(files.status());
  auto sources = wrap::user_files(*program, path.parent_path(), how.cpu);
  if (!sources.ok()) return in_program(sources.status());
  std::move(sources->begin(), sources->end(), std::back_inserter(*files));
  if (const Status status = wrap::write_package(*files, options.output); !status.ok()) {
    return refuse(status);
  }
  fmt::print("{}: {} steps in {} files below {}\n", program->name, program->steps.size(),
             files->size(), options.output);
  if (options.recording.empty()) return kOk;
  return check_package(*program, options.output, options.recording, how.cpu, options.tolerance);
}

}  // namespace

Command add_wrap(CLI::App& app) {
  auto options = std::make_shared<WrapOptions>();
  CLI::App* sub = app.add_subcommand(
      "wrap", "Write a C++ program around compiled kernels and attention, which stands alone");
  sub->add_option("program", options->program, "The program, JSON as docs/wrap.md describes it")
      ->required();
  sub->add_option("-o,--output", options->output, "The folder to write to")->required();
  sub->add_option("--device", options->device,
                  "cuda, or cpu: attention by Attune's library, kernels by their fallbacks")
      ->capture_default_str();
  sub->add_option(
      "--arch", options->archs,
      "GPUs that attention is compiled for, e.g. sm_80,sm_90; else those of the kernels");
  sub->add_flag("--embed", options->embed, "Kernels and constants become part of the program");
  sub->add_flag("--no-checks", options->no_checks, "The program believes its arguments");
  sub->add_option("--check", options->recording,
                  "Build the program, run it on this recording (.safetensors) and compare");
  sub->add_option("--tolerance", options->tolerance,
                  "Of --check: the largest error, as a part of the largest value; else by dtype");
  sub->footer("Example:\n  attune wrap block.json -o block --check block.safetensors");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
