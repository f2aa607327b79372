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

#include "api/choose.h"
#include "cli/command.h"

namespace attune::cli {
namespace {

struct ExplainOptions {
  std::vector<std::string> words;
  std::string kernel;
  std::string device;
  std::string arch;
  int threads = 0;
  bool json = false;
};

nlohmann::json to_json(const DeviceFacts& device) {
  return {{"name", device.name},
          {"arch", device.arch},
          {"shared_per_block", device.shared_per_block},
          {"sms", device.sms},
          {"l2_bytes", device.l2_bytes}};
}

nlohmann::json to_json(const Problem& problem, const Choice& choice, const Expected<Plan>& plan) {
  nlohmann::json json = {{"problem", print(problem)}, {"candidates", nlohmann::json::array()}};
  if (choice.device) json["device"] = to_json(*choice.device);
  for (const Candidate& candidate : choice.candidates) {
    json["candidates"].push_back({{"id", id_of(candidate.spec)},
                                  {"supported", candidate.reasons.empty()},
                                  {"reasons", candidate.reasons},
                                  {"note", candidate.note}});
  }
  if (choice.device_index < 0 && choice.device && choice.chosen) {
    // For a GPU that is not here.
    json["chosen"] = id_of(choice.candidates[*choice.chosen].spec);
  } else if (plan.ok()) {
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
  auto problem = parse(text);
  if (!problem.ok()) return bad_usage(problem.status().message());
  if (!options.device.empty()) {
    problem->device = options.device == "cuda" ? Device::cuda : Device::cpu;
  } else if (!options.arch.empty() && problem->device == Device::automatic) {
    problem->device = Device::cuda;
  }
  if (const Status status = validate(*problem); !status.ok()) return refuse(status);
  PlanOptions plan_options;
  plan_options.threads = options.threads;
  plan_options.kernel = options.kernel;
  plan_options.arch = options.arch;
  const auto choice = choose(*problem, plan_options);
  if (!choice.ok()) return refuse(choice.status());
  const auto words = explain(*problem, plan_options);
  if (!words.ok()) return refuse(words.status());
  const int code = choice->chosen ? kOk : kFailed;
  if (options.json) {
    fmt::print("{}\n", to_json(*problem, *choice, make_plan(*problem, plan_options)).dump(2));
    return code;
  }
  fmt::print("{}{}", *words, words->empty() || words->back() != '\n' ? "\n" : "");
  return code;
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
  sub->add_option("--device", options->device, "As if the problem said so")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  sub->add_option("--arch", options->arch,
                  "For a GPU of this architecture, here or not, e.g. sm_86")
      ->type_name("SM");
  sub->add_flag("--json", options->json, "Print JSON");
  sub->footer(
      "Exit code 1 when no kernel here serves the problem.\n"
      "Example:\n"
      "  attune explain \"forward dtype=bf16 b=2 hq=16 hkv=4 sq=1024 sk=1024 d=128 "
      "mask=causal-bottom-right\"\n"
      "  attune explain \"forward dtype=bf16 sq=4096 d=128\" --arch sm_86");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
