// `attune run`: reads tensors, computes attention, writes and judges the results.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <attune/plan.hpp>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/format.h"
#include "cli/inputs.h"
#include "cli/options.h"
#include "cli/outputs.h"
#include "cli/random.h"
#include "cli/verdict.h"
#include "cli/work.h"
#include "spec/kernel_spec.h"

namespace attune::cli {
namespace {

// The gradient that --backward makes up is always the same one.
constexpr std::uint64_t kGradientSeed = 1;

struct RunOptions {
  AttentionOptions attention;
  std::string out;
  std::string device = "auto";
  std::string kernel;
  double dropout = 0;
  std::string dropout_stream = "curand";
  std::uint64_t seed = 0;
  std::uint64_t dropout_offset = 0;
  int threads = 0;
  int repeat = 0;
  bool lse = false;
  bool deterministic = false;
  bool backward = false;
  bool check = false;
  bool json = false;
};

// One direction: planned, run and timed.
struct Pass {
  Problem problem;
  std::string kernel;
  int threads = 0;
  int device_index = -1;
  std::size_t workspace_bytes = 0;
  Timing timing;
  double seconds = 0;  // median
  double pairs = 0;
  double gflops = 0;
};

struct Outcome {
  Inputs inputs;
  Arguments arguments;          // of the last direction
  std::vector<Tensor> results;  // o first
  Tensor made_up_grad_o;
  std::vector<Pass> passes;
  std::vector<std::string> written;
  std::optional<std::vector<Verdict>> verdicts;
};

Device device_from(const std::string& text) {
  if (text == "cpu") return Device::cpu;
  if (text == "cuda") return Device::cuda;
  return Device::automatic;
}

// --kernel names a kernel of one direction; the other direction chooses for itself.
std::string kernel_for(const RunOptions& options, Kind kind) {
  const auto spec = spec_from(options.kernel);
  const Kind asked = options.backward ? Kind::backward : Kind::forward;
  return (spec ? spec->kind : asked) == kind ? options.kernel : std::string();
}

Expected<Pass> compute(const RunOptions& options, const Problem& problem, const Plan& plan,
                       const Arguments& arguments) {
  Pass pass;
  pass.problem = problem;
  pass.kernel = plan.kernel();
  pass.threads = plan.threads();
  pass.device_index = plan.device_index();
  pass.workspace_bytes = plan.workspace_bytes();
  auto timing = run_timed(plan, arguments, options.repeat);
  if (!timing.ok()) return timing.status();
  pass.timing = *std::move(timing);
  pass.seconds = median(pass.timing.seconds);
  pass.pairs = attended_pairs(problem, arguments);
  if (pass.seconds > 0) pass.gflops = operations(problem, pass.pairs) / pass.seconds * 1e-9;
  return pass;
}

// Plans, allocates the outputs (appended to outcome.results) and runs one direction.
Status add_pass(const RunOptions& options, const Problem& problem, Outcome& outcome) {
  PlanOptions plan_options;
  plan_options.threads = options.threads;
  plan_options.kernel = kernel_for(options, problem.kind);
  const auto plan = make_plan(problem, plan_options);
  if (!plan.ok()) return plan.status();
  auto outputs = allocate_outputs(problem, outcome.inputs.bhsd, outcome.arguments);
  if (!outputs.ok()) return outputs.status();
  for (Tensor& tensor : *outputs) outcome.results.push_back(std::move(tensor));
  auto pass = compute(options, problem, *plan, outcome.arguments);
  if (!pass.ok()) return pass.status();
  outcome.passes.push_back(*std::move(pass));
  return {};
}

Problem forward_problem(const RunOptions& options, const Inputs& inputs) {
  Problem problem = inputs.problem;
  problem.device = device_from(options.device);
  problem.dropout = options.dropout;
  if (options.dropout_stream == "fa2") problem.dropout_stream = DropoutStream::fa2;
  problem.deterministic = options.deterministic;
  if (options.lse || options.backward) problem.lse = LseLayout::plain;
  return problem;
}

// Gradients of everything that has one.
Problem backward_problem(const Problem& forward, bool lse_grad) {
  Problem problem = forward;
  problem.kind = Kind::backward;
  problem.bias.grad = problem.bias.kind == BiasKind::additive;
  problem.sink_grad = problem.sink;
  problem.alibi_grad = problem.alibi != PerHead::none;
  problem.lse_grad = lse_grad;
  return problem;
}

Status add_backward(const RunOptions& options, const Problem& forward, Outcome& outcome) {
  Inputs& inputs = outcome.inputs;
  if (inputs.arguments.grad_o.empty()) {
    auto made =
        normal_tensor("grad_o", forward.dtype, outcome.results.front().shape, kGradientSeed);
    if (!made.ok()) return made.status();
    outcome.made_up_grad_o = *std::move(made);
    inputs.arguments.grad_o = logical_view(outcome.made_up_grad_o, inputs.bhsd);
    inputs.notes.push_back(
        fmt::format("there is no grad_o, so the gradients are for a random normal one (seed {})",
                    kGradientSeed));
  }
  outcome.arguments.grad_o = inputs.arguments.grad_o;
  outcome.arguments.grad_lse = inputs.arguments.grad_lse;
  return add_pass(options, backward_problem(forward, !inputs.arguments.grad_lse.empty()), outcome);
}

// Results leave in the form in which the inputs came.
void drop_batch_dimension(std::vector<Tensor>& tensors) {
  for (Tensor& tensor : tensors) {
    if (tensor.rank() == 4 && tensor.name != "grad_bias" && tensor.shape[0] == 1) {
      tensor.shape.erase(tensor.shape.begin());
    }
  }
}

Expected<Outcome> execute(const RunOptions& options) {
  auto inputs = read_inputs(options.attention);
  if (!inputs.ok()) return inputs.status();
  Outcome outcome;
  outcome.inputs = *std::move(inputs);
  outcome.arguments = outcome.inputs.arguments;
  outcome.arguments.dropout_seed = options.seed;
  outcome.arguments.dropout_offset = options.dropout_offset;
  outcome.arguments.grad_o = {};
  outcome.arguments.grad_lse = {};
  const Problem forward = forward_problem(options, outcome.inputs);
  if (Status status = add_pass(options, forward, outcome); !status.ok()) return status;
  if (options.backward) {
    if (Status status = add_backward(options, forward, outcome); !status.ok()) return status;
  } else if (!outcome.inputs.arguments.grad_o.empty()) {
    outcome.inputs.notes.push_back("grad_o is not used without --backward");
  }
  if (!options.out.empty()) {
    std::vector<Tensor> tensors = outcome.results;
    if (outcome.inputs.rank_three) drop_batch_dimension(tensors);
    auto written = write_outputs(options.out, tensors);
    if (!written.ok()) return written.status();
    outcome.written = *std::move(written);
  }
  if (options.check) {
    auto verdicts =
        check_results(outcome.passes.back().problem, outcome.arguments, options.threads);
    if (!verdicts.ok()) return verdicts.status();
    outcome.verdicts = *std::move(verdicts);
  }
  return outcome;
}

std::string say_where(const Pass& pass) {
  if (pass.device_index >= 0) return fmt::format("GPU {}", pass.device_index);
  return fmt::format("{} thread{}", pass.threads, pass.threads == 1 ? "" : "s");
}

void print_text(const Outcome& outcome) {
  for (const Pass& pass : outcome.passes) {
    fmt::print("{}\n", print(pass.problem));
    fmt::print("  kernel     {}, {}, workspace {}\n", pass.kernel, say_where(pass),
               say_bytes(pass.workspace_bytes));
    const std::string how = pass.timing.first_only
                                ? std::string("the first run")
                                : fmt::format("median of {}", pass.timing.seconds.size());
    fmt::print("  time       {} ({}), {} over {} attended pairs\n", say_seconds(pass.seconds), how,
               say_gflops(pass.gflops), say_count(pass.pairs));
  }
  for (const std::string& note : outcome.inputs.notes) fmt::print("  note       {}\n", note);
  if (!outcome.written.empty()) {
    fmt::print("  wrote      {}\n", fmt::join(outcome.written, ", "));
  }
  if (!outcome.verdicts) return;
  fmt::print("{}", to_text(*outcome.verdicts, outcome.inputs.problem.dtype));
  fmt::print(
      "{}: limits are 2 times the largest and 1.5 times the RMS error of a plain {} "
      "computation, plus its rounding\n",
      all_pass(*outcome.verdicts) ? "PASS" : "FAIL", to_string(outcome.inputs.problem.dtype));
}

nlohmann::json to_json(const Pass& pass) {
  return {{"problem", print(pass.problem)},
          {"kernel", pass.kernel},
          {"threads", pass.threads},
          {"device_index", pass.device_index},
          {"workspace_bytes", pass.workspace_bytes},
          {"runs", pass.timing.seconds.size()},
          {"median_seconds", pass.seconds},
          {"attended_pairs", pass.pairs},
          {"gflops", pass.gflops}};
}

void print_json(const Outcome& outcome) {
  nlohmann::json json = {{"passes", nlohmann::json::array()},
                         {"notes", outcome.inputs.notes},
                         {"written", outcome.written}};
  for (const Pass& pass : outcome.passes) json["passes"].push_back(to_json(pass));
  if (outcome.verdicts) {
    json["check"] = cli::to_json(*outcome.verdicts);
    json["pass"] = all_pass(*outcome.verdicts);
  }
  fmt::print("{}\n", json.dump(2));
}

int run(const RunOptions& options) {
  if (!options.out.empty()) {
    if (const Status status = check_output_name(options.out); !status.ok()) {
      return bad_usage(status.message());
    }
  }
  if (const auto mask = mask_from(options.attention); !mask.ok()) {
    return bad_usage(mask.status().message());
  }
  const auto outcome = execute(options);
  if (!outcome.ok()) return refuse(outcome.status());
  options.json ? print_json(*outcome) : print_text(*outcome);
  return !outcome->verdicts || all_pass(*outcome->verdicts) ? kOk : kFailed;
}

}  // namespace

Command add_run(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* sub = app.add_subcommand("run", "Compute attention on tensors from files");
  add_attention_options(*sub, options->attention);
  sub->add_option("-o,--output", options->out,
                  "Write o (and lse, gradients) here: .safetensors takes all, .npy takes o and the "
                  "others go to OUT_lse.npy and so on")
      ->type_name("OUT");
  sub->add_flag("--lse", options->lse, "Also give the log-sum-exp of each row");
  sub->add_flag("--backward", options->backward,
                "Also compute the gradients, for grad_o from the input or else a random one");
  sub->add_flag("--check", options->check, "Judge the results by the float64 oracle; slow");
  sub->add_option("--dropout", options->dropout, "Probability to drop, in [0, 1)")->type_name("P");
  sub->add_option("--dropout-stream", options->dropout_stream,
                  "Whose random numbers: cuRAND's, or FlashAttention-2's of 8 bits an element")
      ->check(CLI::IsMember({"curand", "fa2"}))
      ->capture_default_str();
  sub->add_option("--seed", options->seed, "Seed of the dropout")->type_name("S");
  sub->add_option("--dropout-offset", options->dropout_offset, "Offset into the dropout's stream")
      ->type_name("N");
  sub->add_option("--device", options->device, "Where to compute")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  sub->add_option("--threads", options->threads, "Threads; 0 takes every core at hand")
      ->check(CLI::Range(0, kMostThreads))
      ->type_name("N");
  sub->add_option("--kernel", options->kernel, "Use this kernel of `attune list`, or say why not")
      ->type_name("ID");
  sub->add_flag("--deterministic", options->deterministic,
                "The same bits on every run and for every number of threads");
  sub->add_option("--repeat", options->repeat, "Timed runs, after one that is not; default 5")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  sub->add_flag("--json", options->json, "Print JSON");
  sub->footer(
      "Example:\n"
      "  attune run qkv.safetensors --prefix layer0. --mask causal-top-left --dtype bf16 --check "
      "-o out.safetensors\n"
      "  attune run q.npy k.npy v.npy --backward --repeat 20 --json");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
