// `attune bench`: how fast the CPU kernels are here, as a table and as JSON.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <algorithm>
#include <array>
#include <attune/plan.hpp>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/bench_gpu.h"
#include "cli/bench_json.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/json_file.h"
#include "cli/machine.h"
#include "cli/options.h"
#include "cli/outputs.h"
#include "cli/random.h"
#include "cli/verdict.h"
#include "cli/work.h"

namespace attune::cli {
namespace {

constexpr std::uint64_t kSeed = 20;

struct BenchOptions {
  std::vector<std::string> problems;
  std::string threads = "0";
  std::string dtypes = "f32,bf16,f16";
  std::string json;
  std::string device = "cpu";
  bool quick = false;
  bool check = false;
  bool peers = false;
  std::string plot;
};

struct Shape {
  std::int64_t heads, s, d;
};
// With B = 1. The first three are the ones that docs/performance compares with other libraries.
constexpr std::array kShapes = {Shape{8, 512, 64},   Shape{8, 2048, 64},  Shape{8, 2048, 128},
                                Shape{16, 1024, 64}, Shape{16, 4096, 64}, Shape{16, 1024, 128},
                                Shape{16, 4096, 128}};
constexpr std::array kQuickShapes = {Shape{8, 512, 64}, Shape{8, 1024, 128}};

struct Row {
  Problem problem;
  int threads = 0;
  std::string kernel;
  std::size_t workspace_bytes = 0;
  std::size_t runs = 0;
  double seconds = 0;
  double gflops = 0;
  std::optional<std::vector<Verdict>> verdicts;
};

Expected<Timing> time_enough(const Plan& plan, const Arguments& arguments, bool quick) {
  const double budget = quick ? 0.2 : 1.0;
  auto first = run_timed(plan, arguments, 1);
  if (!first.ok()) return first;
  const double runs = budget / std::max(median(first->seconds), 1e-6);
  return run_timed(plan, arguments, static_cast<int>(std::clamp(runs, 3.0, 50.0)));
}

Expected<Row> measure(const Problem& problem, int threads, const BenchOptions& options) {
  PlanOptions plan_options;
  plan_options.threads = threads;
  const auto plan = make_plan(problem, plan_options);
  if (!plan.ok()) return plan.status();
  Arguments arguments;
  const auto inputs = make_inputs(problem, kSeed, arguments);
  if (!inputs.ok()) return inputs.status();
  Expected<std::vector<Tensor>> forward_outputs = std::vector<Tensor>();
  if (problem.kind == Kind::backward) {
    const Problem forward = forward_of(problem);
    const auto forward_plan = make_plan(forward, plan_options);
    if (!forward_plan.ok()) return forward_plan.status();
    forward_outputs = allocate_outputs(forward, false, arguments);
    if (!forward_outputs.ok()) return forward_outputs.status();
    if (Status status = forward_plan->run(forward_of(arguments)); !status.ok()) return status;
  }
  const auto outputs = allocate_outputs(problem, false, arguments);
  if (!outputs.ok()) return outputs.status();
  const auto timing = time_enough(*plan, arguments, options.quick);
  if (!timing.ok()) return timing.status();
  Row row;
  row.problem = problem;
  row.threads = plan->threads();
  row.kernel = plan->kernel();
  row.workspace_bytes = plan->workspace_bytes();
  row.runs = timing->seconds.size();
  row.seconds = median(timing->seconds);
  if (row.seconds > 0) {
    row.gflops = operations(problem, attended_pairs(problem, arguments)) / row.seconds * 1e-9;
  }
  if (options.check) {
    auto verdicts = check_results(problem, arguments, 0);
    if (!verdicts.ok()) return verdicts.status();
    row.verdicts = *std::move(verdicts);
  }
  return row;
}

// Either the problems of the command line or the standard list.
Expected<std::vector<Problem>> problems_of(const BenchOptions& options) {
  std::vector<Problem> problems;
  for (const std::string& text : options.problems) {
    const auto problem = parse(text);
    if (!problem.ok()) return problem.status();
    problems.push_back(*problem);
  }
  if (!problems.empty()) return problems;
  std::vector<Shape> shapes(kShapes.begin(), kShapes.end());
  if (options.quick) shapes.assign(kQuickShapes.begin(), kQuickShapes.end());
  for (const std::string& name : split(options.dtypes, ',')) {
    const auto dtype = float_dtype_from(name);
    if (!dtype) {
      return Status(Code::invalid_argument,
                    fmt::format("--dtypes: '{}' is none of f32, f16, bf16, f8e4m3", name));
    }
    for (const Kind kind : {Kind::forward, Kind::backward}) {
      if (kind == Kind::backward && *dtype == DType::f8e4m3) continue;  // it has none
      for (const Shape& shape : shapes) {
        for (const bool causal : {false, true}) {
          Problem problem;
          problem.kind = kind;
          problem.device = Device::cpu;
          problem.dtype = *dtype;
          problem.hq = problem.hkv = shape.heads;
          problem.sq = problem.sk = shape.s;
          problem.d = problem.dv = shape.d;
          problem.mask.causal = causal;
          if (kind == Kind::backward) problem.lse = LseLayout::plain;
          problems.push_back(problem);
        }
      }
    }
  }
  return problems;
}

nlohmann::json to_json(const Row& row) {
  nlohmann::json json = problem_fields(row.problem);
  json.update({{"threads", row.threads},
               {"kernel", row.kernel},
               {"workspace_bytes", row.workspace_bytes},
               {"runs", row.runs},
               {"median_seconds", row.seconds},
               {"gflops", row.gflops}});
  if (row.verdicts) {
    json["check"] = cli::to_json(*row.verdicts);
    json["error_of_limit"] = worst_ratio(*row.verdicts);
    json["pass"] = all_pass(*row.verdicts);
  }
  return json;
}

void print_row(std::FILE* out, const std::string& rate, const std::string& time,
               const std::string& workspace, const std::string& threads, const std::string& error,
               const std::string& kernel, const std::string& problem) {
  fmt::print(out, "{:>8}  {:>9}  {:>10}  {:>7}  {:>8}  {:<24}  {}\n", rate, time, workspace,
             threads, error, kernel, problem);
  std::fflush(out);
}

void print_row(std::FILE* out, const Row& row) {
  print_row(out, fmt::format("{:.1f}", row.gflops), say_seconds(row.seconds),
            say_bytes(row.workspace_bytes), std::to_string(row.threads),
            row.verdicts ? fmt::format("{:.2f}{}", worst_ratio(*row.verdicts),
                                       all_pass(*row.verdicts) ? "" : " !")
                         : "-",
            row.kernel, print(row.problem));
}

int run_on_gpu(const BenchOptions& options) {
  if (options.peers) return bench_peers(options.json, options.plot);
  if (!options.plot.empty()) return bad_usage("--plot goes with --peers");
  GpuBenchOptions gpu;
  gpu.json = options.json;
  gpu.quick = options.quick;
  for (const std::string& text : options.problems) {
    auto problem = parse(text);
    if (!problem.ok()) return bad_usage(problem.status().message());
    problem->device = Device::cuda;
    gpu.problems.push_back(std::move(problem).value());
  }
  return bench_gpu(gpu);
}

int run(const BenchOptions& options) {
  if (options.device == "cuda") return run_on_gpu(options);
  if (options.peers) return bad_usage("--peers is for --device cuda; see bench/cpu_peers.py");
  if (!options.plot.empty()) return bad_usage("--plot is for --device cuda --peers");
  const auto threads = integers_from(options.threads);
  if (!threads.ok() || threads->empty() ||
      std::any_of(threads->begin(), threads->end(),
                  [](std::int64_t n) { return n < 0 || n > kMostThreads; })) {
    return bad_usage(
        fmt::format("--threads {}: numbers from 0 (every core) to {} are wanted, e.g. "
                    "1,2",
                    options.threads, kMostThreads));
  }
  const auto problems = problems_of(options);
  if (!problems.ok()) return bad_usage(problems.status().message());
  nlohmann::json json = {{"device", cpu_model()},          {"cores", usable_cores()},
                         {"compiler", compiler_version()}, {"version", library_version()},
                         {"commit", source_commit()},      {"rows", nlohmann::json::array()}};
  // With JSON on stdout, the table is for the person who waits.
  std::FILE* out = options.json == "-" ? stderr : stdout;
  fmt::print(out, "{}, {} cores; Attune {} (commit {}), {}\n", cpu_model(), usable_cores(),
             library_version(), source_commit(), compiler_version());
  print_row(out, "GFLOP/s", "median", "workspace", "threads", "of limit", "kernel", "problem");
  int code = kOk;
  for (const Problem& problem : *problems) {
    for (const std::int64_t count : *threads) {
      const auto row = measure(problem, static_cast<int>(count), options);
      if (!row.ok()) {
        code = kFailed;
        fmt::print(stderr, "attune: {}\n  {}\n", print(problem), row.status().message());
        continue;
      }
      print_row(out, *row);
      if (row->verdicts && !all_pass(*row->verdicts)) code = kFailed;
      json["rows"].push_back(to_json(*row));
    }
  }
  if (!options.json.empty()) {
    if (const int written = write_json(options.json, json); written != kOk) return written;
  }
  return code;
}

}  // namespace

Command add_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* sub = app.add_subcommand("bench", "Measure the kernels on this machine");
  sub->add_option("--device", options->device, "What to measure")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  sub->add_flag("--peers", options->peers,
                "With --device cuda: beside PyTorch's attention, where python3 imports torch");
  sub->add_option("--plot", options->plot,
                  "With --peers: draw TFLOP/s over S to this file (.svg, .png), by Matplotlib");
  sub->add_flag("--quick", options->quick, "Two small shapes and short measurements");
  sub->add_option("--threads", options->threads, "Numbers of threads; 0 is every core at hand")
      ->type_name("N,...")
      ->capture_default_str();
  sub->add_option("--dtypes", options->dtypes, "Of the standard list")
      ->type_name("DTYPE,...")
      ->capture_default_str();
  sub->add_option("--problem", options->problems,
                  "Measure this problem instead of the standard list; may be given again")
      ->type_name("TEXT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sub->add_flag("--check", options->check,
                "Judge every result by the float64 oracle; slow. On a GPU a small problem of each "
                "kind always is");
  sub->add_option("--json", options->json, "Also write JSON to this file; - is standard output")
      ->type_name("OUT");
  sub->footer(
      "Rates count the matrix products of attended pairs only: 2 (D + Dv) a pair forward, "
      "2 (3 D + 2 Dv) backward.\n"
      "Example:\n"
      "  attune bench --quick --threads 1,2 --json bench.json\n"
      "  attune bench --device cuda --json gpu.json\n"
      "  attune bench --problem \"forward dtype=bf16 hq=8 hkv=8 sq=2048 sk=2048 d=128\" --check");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
