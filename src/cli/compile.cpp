// `attune compile`: rows of the kernel table to cubins, ahead of time and over all cores.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cli/budget.h"
#include "cli/command.h"
#include "cli/compile_workers.h"
#include "cli/format.h"
#include "cli/kernels.h"
#include "cli/machine.h"
#include "cli/progress.h"
#include "cubin/bundle.h"
#include "cubin/content_hash.h"
#include "cubin/elf.h"
#include "cubin/json_fields.h"
#include "cubin/recipe.h"
#include "io/file.h"
#include "source/translation_unit.h"

namespace attune::cli {
namespace {

struct CompileOptions {
  std::vector<std::string> ids;
  std::string catalog;
  bool all = false;
  std::string family;
  std::string archs;
  std::string output;
  std::string compiler = "nvrtc";
  int jobs = 0;
  bool check = false;
  bool json = false;
};

// What is told about a kernel; its bytes are gone or in the bundle.
struct Row {
  std::string id;
  Target target;
  CubinFacts facts;
  std::size_t cubin_bytes = 0;
  std::string code_hash;  // of the instructions alone: tells which architectures share them
  double seconds = 0;
  bool compiled = false;
  std::vector<std::string> broken;  // budgets
};

struct Outcome {
  std::vector<Row> rows;
  std::vector<std::string> failures;
  std::vector<BundleItem> items;
  double seconds = 0;
};

Expected<std::vector<KernelSpec>> chosen(const CompileOptions& options) {
  std::vector<KernelSpec> specs;
  if (!options.catalog.empty()) {
    auto read = read_catalog(options.catalog);
    if (!read.ok()) return read.status();
    specs = *std::move(read);
  } else if (!options.ids.empty()) {
    for (const std::string& id : options.ids) {
      const auto spec = gpu_row(id);
      if (!spec.ok()) return spec.status();
      if (std::find(specs.begin(), specs.end(), *spec) == specs.end()) specs.push_back(*spec);
    }
  } else {
    specs = gpu_rows();
  }
  if (!options.family.empty()) {
    const auto family = gpu_family_from(options.family);
    if (!family.ok()) return family.status();
    std::erase_if(specs, [&](const KernelSpec& spec) { return spec.family != *family; });
  }
  return specs;
}

// The whole table is cut to what the architectures run; a row that was asked for by name must run.
Expected<std::vector<CompileJob>> jobs_for(const CompileOptions& options,
                                           const std::vector<KernelSpec>& specs,
                                           const std::vector<Target>& targets) {
  std::vector<CompileJob> jobs;
  for (const KernelSpec& spec : specs) {
    const ArchRange range = spec.archs;
    CompileJob job{spec, {}};
    for (const Target& target : targets) {
      if (target.arch < range.begin || target.arch >= range.end) continue;
      // sm_90 and sm_90a are the same where a row is made of sm_90a's own instructions.
      const Target its = target_of(spec, target);
      if (std::ranges::find(job.targets, its) == job.targets.end()) job.targets.push_back(its);
    }
    if (!job.targets.empty()) {
      jobs.push_back(std::move(job));
    } else if (!options.all) {
      return Status(Code::invalid_argument,
                    fmt::format("{} runs on none of {}", id_of(spec), options.archs));
    }
  }
  if (jobs.empty()) {
    return Status(Code::invalid_argument,
                  fmt::format("no kernel of the table runs on {}", options.archs));
  }
  return jobs;
}

std::string code_hash(std::span<const std::byte> cubin) {
  const auto elf = read_elf(cubin);
  if (!elf.ok()) return "";
  ContentHash code;
  const std::string kernels = ".text." + std::string(kEntryName);
  for (const ElfSection& section : elf->sections) {
    if (!section.name.starts_with(kernels)) continue;
    code.add(section.name)
        .add({reinterpret_cast<const char*>(section.data.data()), section.data.size()});
  }
  return code.text();
}

// Bytes are kept for a bundle alone: the whole catalogue has hundreds of megabytes.
Outcome outcome_of(const CompileJob& job, std::vector<CompileResult> results,
                   const Toolchain& toolchain, bool keep_bytes) {
  Outcome outcome;
  for (std::size_t i = 0; i < results.size(); ++i) {
    auto& [cubin, compiled, status] = results[i];
    if (!status.ok()) {
      outcome.failures.push_back(status.message());
      continue;
    }
    outcome.rows.push_back({id_of(job.spec), job.targets[i], cubin.facts, cubin.bytes.size(),
                            code_hash(cubin.bytes), cubin.seconds, compiled,
                            broken_budgets(job.spec, cubin.facts)});
    if (keep_bytes) {
      outcome.items.push_back({recipe_for(job.spec, job.targets[i], toolchain), std::move(cubin)});
    }
  }
  return outcome;
}

std::int64_t count(const std::vector<CompileJob>& jobs) {
  std::int64_t kernels = 0;
  for (const CompileJob& job : jobs) kernels += static_cast<std::int64_t>(job.targets.size());
  return kernels;
}

Expected<Outcome> compile_them(const CompileOptions& options, const std::vector<CompileJob>& jobs,
                               const Toolchain& toolchain) {
  const std::unique_ptr<DiskCache> cache = default_cache();
  const int wanted = options.jobs > 0 ? options.jobs : usable_cores();
  const int workers = std::min<int>(wanted, static_cast<int>(jobs.size()));
  const auto start = std::chrono::steady_clock::now();
  std::vector<Outcome> parts(jobs.size());  // in the jobs' order, whichever ends first
  // Its thread starts on a terminal only, and the workers are forked before the first kernel is ready.
  std::unique_ptr<Progress> progress;
  const Status status = compile_jobs(
      jobs, toolchain, cache.get(), workers,
      [&](std::size_t i, std::vector<CompileResult> results) {
        if (!progress) progress = std::make_unique<Progress>("compiling", count(jobs));
        progress->advance(static_cast<std::int64_t>(results.size()));
        parts[i] = outcome_of(jobs[i], std::move(results), toolchain, !options.output.empty());
      });
  if (!status.ok()) return status;
  progress.reset();

  Outcome outcome;
  for (Outcome& part : parts) {
    std::move(part.rows.begin(), part.rows.end(), std::back_inserter(outcome.rows));
    std::move(part.failures.begin(), part.failures.end(), std::back_inserter(outcome.failures));
    std::move(part.items.begin(), part.items.end(), std::back_inserter(outcome.items));
  }
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return outcome;
}

Status write_bundle(const std::string& path, std::vector<BundleItem> items, std::size_t& bytes) {
  const auto bundle = format_bundle(std::move(items));
  if (!bundle.ok()) return bundle.status();
  bytes = bundle->size();
  const std::span<const std::byte> part(*bundle);
  return write_file(path, std::span(&part, 1));
}

void print_text(const Outcome& outcome) {
  constexpr std::size_t kMostRows = 24;  // a screen; more are summed up
  std::vector<double> seconds;
  std::uint32_t most_registers = 0;
  std::size_t bytes = 0;
  for (const Row& row : outcome.rows) {
    if (row.compiled) seconds.push_back(row.seconds);
    most_registers = std::max(most_registers, row.facts.registers);
    bytes += row.cubin_bytes;
  }
  if (outcome.rows.size() <= kMostRows && !outcome.rows.empty()) {
    std::vector<std::vector<std::string>> rows = {
        {"id", "for", "registers", "local", "cubin", "compiled in"}};
    for (const Row& row : outcome.rows) {
      rows.push_back({row.id, to_string(row.target), std::to_string(row.facts.registers),
                      say_bytes(row.facts.local_bytes), say_bytes(row.cubin_bytes),
                      say_seconds(row.seconds) + (row.compiled ? "" : " (from the cache)")});
    }
    fmt::print("{}\n", table(rows));
  }
  fmt::print("{} kernels ({}) in {}", outcome.rows.size(), say_bytes(bytes),
             say_seconds(outcome.seconds));
  if (!seconds.empty()) {
    const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
    fmt::print("; {} compiled, one in {} to {}, median {}", seconds.size(), say_seconds(*least),
               say_seconds(*most), say_seconds(median(seconds)));
  }
  fmt::print("; at most {} registers\n", most_registers);
}

void print_json(const Outcome& outcome, const Toolchain& toolchain) {
  nlohmann::json kernels = nlohmann::json::array();
  for (const Row& row : outcome.rows) {
    kernels.push_back({{"id", row.id},
                       {"target", to_string(row.target)},
                       {"facts", facts_json(row.facts)},
                       {"cubin_bytes", row.cubin_bytes},
                       {"code_hash", row.code_hash},
                       {"compile_seconds", row.seconds},
                       {"compiled", row.compiled},
                       {"broken_budgets", row.broken}});
  }
  const nlohmann::json json = {{"compiler", toolchain.version},
                               {"seconds", outcome.seconds},
                               {"kernels", std::move(kernels)},
                               {"failures", outcome.failures}};
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

// One in full: a mistake in a header fails every kernel in the same words. Of the others the first
// line, which names the kernel.
void print_failures(const std::vector<std::string>& failures) {
  constexpr std::size_t kMost = 20;
  for (std::size_t i = 0; i < std::min(failures.size(), kMost); ++i) {
    fmt::print(stderr, "attune: {}\n",
               i == 0 ? failures[i] : failures[i].substr(0, failures[i].find('\n')));
  }
  if (failures.size() > kMost) {
    fmt::print(stderr, "attune: ... and {} more failures\n", failures.size() - kMost);
  }
}

int run(const CompileOptions& options) {
  const int ways = static_cast<int>(options.all) + static_cast<int>(!options.catalog.empty()) +
                   static_cast<int>(!options.ids.empty());
  if (ways != 1) return bad_usage("name the kernels by one of --spec, --catalog and --all");
  if (options.output.empty() && !options.check) {
    return bad_usage("nothing would be kept: give -o, or --check to read the kernels' costs alone");
  }
  const auto compiler = compiler_from(options.compiler);
  if (!compiler.ok()) return bad_usage(compiler.status().message());
  const auto specs = chosen(options);
  if (!specs.ok()) return refuse(specs.status());
  const auto toolchain = find_toolchain(*compiler);
  if (!toolchain.ok()) return refuse(toolchain.status());
  const auto targets = targets_from(options.archs, *toolchain);
  if (!targets.ok()) return refuse(targets.status());
  const auto jobs = jobs_for(options, *specs, *targets);
  if (!jobs.ok()) return refuse(jobs.status());
  auto outcome = compile_them(options, *jobs, *toolchain);
  if (!outcome.ok()) return refuse(outcome.status());

  if (options.json) {
    print_json(*outcome, *toolchain);
  } else {
    print_text(*outcome);
  }
  print_failures(outcome->failures);
  if (!outcome->failures.empty()) return kFailed;  // a bundle that lacks what was asked for is none
  if (!options.output.empty()) {
    std::size_t bytes = 0;
    if (const Status status = write_bundle(options.output, std::move(outcome->items), bytes);
        !status.ok()) {
      return refuse(status);
    }
    if (!options.json) fmt::print("{}: {}\n", options.output, say_bytes(bytes));
  }
  int exit_code = kOk;
  if (options.check) {
    for (const Row& row : outcome->rows) {
      for (const std::string& broken : row.broken) {
        fmt::print(stderr, "attune: {} for {}: {}\n", row.id, to_string(row.target), broken);
        exit_code = kFailed;
      }
    }
  }
  return exit_code;
}

}  // namespace

Command add_compile(CLI::App& app) {
  auto options = std::make_shared<CompileOptions>();
  CLI::App* sub = app.add_subcommand("compile", "Compile GPU kernels ahead of time into a bundle");
  sub->add_option("--spec", options->ids, "Kernels by id");
  sub->add_option("--catalog", options->catalog, "A file with one id per line; # begins a comment");
  sub->add_flag("--all", options->all, "Every kernel of the table that the architectures run");
  sub->add_option("--family", options->family, "Only kernels of this family, e.g. portable");
  sub->add_option("--arch", options->archs, "Architectures: sm_80,sm_90, or all")->required();
  sub->add_option("-o,--output", options->output, "The bundle to write");
  sub->add_option("--compiler", options->compiler, "nvrtc or nvcc")->capture_default_str();
  sub->add_option("-j,--jobs", options->jobs, "Processes that compile; 0: one per core")
      ->check(CLI::Range(0, kMostThreads));
  sub->add_flag("--check", options->check,
                "Fail when a kernel spills, uses local memory or too many registers");
  sub->add_flag("--json", options->json, "Print JSON");
  sub->footer("Example:\n  attune compile --all --arch sm_80,sm_90 -o kernels.attune");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
