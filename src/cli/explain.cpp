// `attune explain`: which kernel a Problem gets, and why not the others.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "select/select.h"

namespace attune::cli {
namespace {

struct ExplainOptions {
  std::vector<std::string> words;
  std::string kernel;
  int threads = 0;
  bool json = false;
};

nlohmann::json to_json(const Problem& problem, const std::string& kernel,
                       const Expected<Plan>& plan) {
  nlohmann::json json = {{"problem", print(problem)}, {"candidates", nlohmann::json::array()}};
  for (const Candidate& candidate : candidates(problem, kernel)) {
    json["candidates"].push_back({{"id", id_of(candidate.spec)},
                                  {"supported", candidate.reasons.empty()},
                                  {"reasons", candidate.reasons},
                                  {"note", candidate.note}});
  }
  if (plan.ok()) {
    json["chosen"] = plan->kernel();
    json["threads"] = plan->threads();
    json["workspace_bytes"] = plan->workspace_bytes();
    json["text"] = plan->explain();
  } else {
    json["chosen"] = nullptr;
    json["refusal"] = plan.status().message();
  }
  return json;
}

int run(const ExplainOptions& options) {
  const std::string text = fmt::format("{}", fmt::join(options.words, " "));
  const auto problem = parse(text);
  if (!problem.ok()) return bad_usage(problem.status().message());
  if (const Status status = validate(*problem); !status.ok()) return refuse(status);
  PlanOptions plan_options;
  plan_options.threads = options.threads;
  plan_options.kernel = options.kernel;
  const auto plan = make_plan(*problem, plan_options);
  if (options.json) {
    fmt::print("{}\n", to_json(*problem, options.kernel, plan).dump(2));
    return plan.ok() ? kOk : kFailed;
  }
  const auto words = explain(*problem, plan_options);
  if (!words.ok()) return refuse(words.status());
  fmt::print("{}{}", *words, words->empty() || words->back() != '\n' ? "\n" : "");
  return plan.ok() ? kOk : kFailed;
}

}  // namespace

Command add_explain(CLI::App& app) {
  auto options = std::make_shared<ExplainOptions>();
  CLI::App* sub = app.add_subcommand("explain", "Say which kernel a problem gets, and why");
  sub->add_option("PROBLEM", options->words,
                  "The problem as `attune run` prints it; what is left out has its default")
      ->required();
  sub->add_option("--kernel", options->kernel, "As if this kernel had been asked for")
      ->type_name("ID");
  sub->add_option("--threads", options->threads, "Threads; 0 takes every core at hand")
      ->check(CLI::Range(0, kMostThreads))
      ->type_name("N");
  sub->add_flag("--json", options->json, "Print JSON");
  sub->footer(
      "Exit code 1 when no kernel here serves the problem.\n"
      "Example:\n"
      "  attune explain \"forward dtype=bf16 b=2 hq=16 hkv=4 sq=1024 sk=1024 d=128 "
      "mask=causal-bottom-right\"");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
