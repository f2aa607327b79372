#include "cli/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <utility>

#include "cli/format.h"
#include "cli/machine.h"
#include "cli/reference.h"

namespace attune::cli {
namespace {

struct Pairing {
  const char* name;
  TensorView Arguments::*view;
  std::vector<double> oracle::Result::*values;
};

constexpr std::array kPairings = {
    Pairing{"o", &Arguments::o, &oracle::Result::o},
    Pairing{"lse", &Arguments::lse, &oracle::Result::lse},
    Pairing{"grad_q", &Arguments::grad_q, &oracle::Result::grad_q},
    Pairing{"grad_k", &Arguments::grad_k, &oracle::Result::grad_k},
    Pairing{"grad_v", &Arguments::grad_v, &oracle::Result::grad_v},
    Pairing{"grad_bias", &Arguments::grad_bias, &oracle::Result::grad_bias},
    Pairing{"grad_sink", &Arguments::grad_sink, &oracle::Result::grad_sink},
    Pairing{"grad_alibi_slopes", &Arguments::grad_alibi_slopes, &oracle::Result::grad_alibi_slopes},
};

// A rough rate of the oracle's inner loops on one core, only to decide whether to warn.
constexpr double kStepsPerSecond = 3e8;
constexpr double kLong = 10;  // seconds

void warn_when_long(const Problem& problem, int threads) {
  const double steps = reference_steps(problem, true);
  const int workers = threads > 0 ? threads : usable_cores();
  const double seconds = steps / (kStepsPerSecond * workers);
  if (seconds < kLong) return;
  fmt::print(stderr,
             "attune: the oracle looks at every query and key: {} steps, so this check takes "
             "roughly {} on {} cores\n",
             say_count(steps), say_seconds(seconds), workers);
}

}  // namespace

Expected<std::vector<Verdict>> check_results(const Problem& problem, const Arguments& arguments,
                                             int threads) {
  warn_when_long(problem, threads);
  const auto both = reference(problem, arguments, true, threads);
  if (!both.ok()) return both.status();
  std::vector<Verdict> verdicts;
  for (const Pairing& pairing : kPairings) {
    const TensorView& got = arguments.*pairing.view;
    if (got.empty()) continue;
    verdicts.push_back(
        {pairing.name, oracle::compare(got, pairing.values, both->exact, both->plain)});
  }
  return verdicts;
}

bool all_pass(const std::vector<Verdict>& verdicts) {
  return std::all_of(verdicts.begin(), verdicts.end(),
                     [](const Verdict& verdict) { return verdict.error.pass(); });
}

double worst_ratio(const std::vector<Verdict>& verdicts) {
  double worst = 0;
  for (const Verdict& verdict : verdicts) {
    worst = std::max({worst, verdict.error.max_ratio, verdict.error.rms_ratio});
    if (!verdict.error.same_nonfinite) worst = std::numeric_limits<double>::infinity();
  }
  return worst;
}

std::string to_text(const std::vector<Verdict>& verdicts, DType dtype) {
  const std::string plain = fmt::format("plain {}", to_string(dtype));
  std::vector<std::vector<std::string>> rows = {
      {"  check", "max error", plain, "ratio", "of limit", "RMS of limit", ""}};
  std::string details;
  for (const auto& [tensor, e] : verdicts) {
    rows.push_back({"  " + tensor, fmt::format("{:.2e}", e.max), fmt::format("{:.2e}", e.plain_max),
                    e.plain_max > 0 ? fmt::format("{:.2f}", e.max / e.plain_max) : "-",
                    fmt::format("{:.2f}", e.max_ratio), fmt::format("{:.2f}", e.rms_ratio),
                    e.pass() ? "pass" : "FAIL"});
    if (e.pass()) continue;
    if (!e.same_nonfinite) {
      details +=
          fmt::format("  {}: NaN or infinity does not stand where the oracle's does\n", tensor);
    }
    details += fmt::format("  {}: worst at {}\n", tensor, e.first_bad);
  }
  return table(rows) + details;
}

nlohmann::json to_json(const std::vector<Verdict>& verdicts) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [tensor, e] : verdicts) {
    json[tensor] = {{"max_error", e.max},
                    {"rms_error", e.rms},
                    {"plain_max_error", e.plain_max},
                    {"plain_rms_error", e.plain_rms},
                    {"floor", e.floor},
                    {"rms_floor", e.rms_floor},
                    {"max_of_limit", e.max_ratio},
                    {"rms_of_limit", e.rms_ratio},
                    {"same_nonfinite", e.same_nonfinite},
                    {"pass", e.pass()}};
    if (e.plain_max > 0) json[tensor]["ratio"] = e.max / e.plain_max;
    if (!e.pass()) json[tensor]["worst"] = e.first_bad;
  }
  return json;
}

}  // namespace attune::cli
