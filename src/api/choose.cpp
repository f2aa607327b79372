#include "api/choose.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "launch/device.h"

namespace attune {

namespace {

Problem normalised(Problem problem) {
  // The pointers of a call may be of either side; what is not said is taken to be the host's.
  if (problem.device == Device::automatic) problem.device = Device::cpu;
  return problem;
}

Status check_options(const PlanOptions& options) {
  constexpr int kMostThreads = 4096;
  if (options.threads < 0 || options.threads > kMostThreads) {
    return {Code::invalid_argument, fmt::format("threads = {} is not in 0 .. {} (0: every core)",
                                                options.threads, kMostThreads)};
  }
  if (options.device_index < -1) {
    return {
        Code::invalid_argument,
        fmt::format("device_index = {} is no GPU; -1 is the current one", options.device_index)};
  }
  if (!options.kernel.empty() && !spec_from(options.kernel)) {
    return {Code::invalid_argument,
            fmt::format("no kernel is called '{}'; `attune list` shows them all", options.kernel)};
  }
  return {};
}

// The GPU of a choice: the architecture that was named, or one of this machine.
Status find_device(const PlanOptions& options, Choice& choice) {
  if (!options.arch.empty()) {
    Expected<DeviceFacts> device = device_of(options.arch);
    if (!device.ok()) return device.status();
    choice.device = std::move(device).value();
    return {};
  }
  const Expected<int> index =
      options.device_index >= 0 ? Expected<int>(options.device_index) : cuda::current_device();
  Expected<DeviceFacts> device = index.ok() ? cuda::facts_of_device(*index) : index.status();
  if (device.ok()) {
    choice.device_index = *index;
    choice.device = std::move(device).value();
    return {};
  }
  if (device.status().code() == Code::invalid_argument) return device.status();
  choice.no_device = device.status();
  return {};
}

std::string describe_device(const Choice& choice) {
  if (!choice.device) return "";
  const DeviceFacts& device = *choice.device;
  const std::string where =
      choice.device_index < 0 ? "as of" : fmt::format("GPU {},", choice.device_index);
  return fmt::format("device {} {}: sm_{}, {} SMs, {} bytes of shared memory a block, {} MiB L2\n",
                     where, device.name, device.arch, device.sms, device.shared_per_block,
                     device.l2_bytes >> 20);
}

// Reasons that many rows share: they are numbered and said once, below the rows.
std::vector<std::string> repeated_reasons(const std::vector<Candidate>& candidates) {
  constexpr int kMany = 4;
  std::map<std::string, int> counts;
  std::vector<std::string> repeated;
  for (const Candidate& candidate : candidates) {
    for (const std::string& reason : candidate.reasons) {
      if (++counts[reason] == kMany) repeated.push_back(reason);
    }
  }
  return repeated;
}

std::string say_reasons(const std::vector<std::string>& reasons,
                        const std::vector<std::string>& notes) {
  std::string text;
  for (const std::string& reason : reasons) {
    if (!text.empty()) text += "; ";
    const auto note = std::find(notes.begin(), notes.end(), reason);
    text += note == notes.end() ? reason : fmt::format("[{}]", note - notes.begin() + 1);
  }
  return text;
}

}  // namespace

std::string Choice::describe() const {
  std::string text = describe_device(*this) + "candidates, in order:\n";
  std::size_t width = 25;
  for (const Candidate& candidate : candidates) {
    width = std::max(width, id_of(candidate.spec).size());
  }
  if (candidates.empty()) {
    text += fmt::format("  none: {}\n", no_candidate(problem, device ? &*device : nullptr));
  }
  const std::vector<std::string> notes = repeated_reasons(candidates);
  for (std::size_t n = 0; n < candidates.size(); ++n) {
    const Candidate& candidate = candidates[n];
    text += fmt::format("  {:<{}} ", id_of(candidate.spec), width);
    if (n == chosen) {
      text += "chosen";
    } else if (candidate.reasons.empty()) {
      text += "would serve; a better one comes first";
    } else {
      text += "refused: " + say_reasons(candidate.reasons, notes);
    }
    if (!candidate.note.empty()) text += " (" + candidate.note + ")";
    text += '\n';
  }
  for (std::size_t n = 0; n < notes.size(); ++n) {
    text += fmt::format("  [{}] {}\n", n + 1, notes[n]);
  }
  return text;
}

Status Choice::refusal() const {
  std::string text = fmt::format("no kernel serves this problem: {}\n", print(problem));
  if (!no_device.ok()) {
    return {Code::unsupported,
            text + fmt::format("it asks for device=cuda, but {}. Use device=cpu, or explain it for "
                               "some GPU with arch (`attune explain ... --arch sm_90`)\n",
                               no_device.message())};
  }
  return {Code::unsupported, text + describe()};
}

Expected<Choice> choose(const Problem& problem, const PlanOptions& options) {
  if (Status status = validate(problem); !status.ok()) return status;
  if (Status status = check_options(options); !status.ok()) return status;
  Choice choice;
  choice.problem = normalised(problem);
  if (choice.problem.device == Device::cuda) {
    if (Status status = find_device(options, choice); !status.ok()) return status;
  }
  choice.candidates =
      candidates(choice.problem, options.kernel, choice.device ? &*choice.device : nullptr);
  const auto first = std::find_if(choice.candidates.begin(), choice.candidates.end(),
                                  [](const Candidate& c) { return c.reasons.empty(); });
  if (first != choice.candidates.end()) {
    choice.chosen = static_cast<std::size_t>(first - choice.candidates.begin());
  }
  return choice;
}

}  // namespace attune
