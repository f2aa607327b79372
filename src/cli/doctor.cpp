// `attune doctor`: what this machine and this build offer, and what is missing.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/format.h"
#include "cli/machine.h"
#include "host/environment.h"
#include "host/isa.h"

namespace attune::cli {
namespace {

struct DoctorOptions {
  bool json = false;
};

// Table names are literals, so that they end with a 0.
const char* value_of(const EnvironmentVariable& variable) {
  return std::getenv(variable.name.data());
}

nlohmann::json to_json(const std::vector<SharedLibrary>& libraries) {
  nlohmann::json json = {{"version", library_version()},
                         {"commit", source_commit()},
                         {"compiler", compiler_version()},
                         {"cpu", cpu_model()},
                         {"cores", usable_cores()}};
  for (const Isa isa : kAllIsas) {
    const std::string missing = missing_for(isa);
    json["instruction_sets"].push_back(
        {{"name", to_string(isa)}, {"available", missing.empty()}, {"missing", missing}});
  }
  for (const SharedLibrary& library : libraries) {
    json["libraries"].push_back({{"name", library.name},
                                 {"found", library.found},
                                 {"details", library.details},
                                 {"package", library.package}});
  }
  json["gpus"] = nlohmann::json::array();
  for (const Expected<DeviceFacts>& gpu : gpus()) {
    if (!gpu.ok()) {
      json["gpus"].push_back({{"error", gpu.status().message()}});
      continue;
    }
    json["gpus"].push_back({{"name", gpu->name},
                            {"arch", gpu->arch},
                            {"sms", gpu->sms},
                            {"shared_per_block", gpu->shared_per_block},
                            {"l2_bytes", gpu->l2_bytes}});
  }
  for (const EnvironmentVariable& variable : environment_variables()) {
    const char* value = value_of(variable);
    json["environment"].push_back({{"name", variable.name},
                                   {"value", value ? nlohmann::json(value) : nlohmann::json()},
                                   {"values", variable.values},
                                   {"meaning", variable.meaning}});
  }
  return json;
}

void print_text(const std::vector<SharedLibrary>& libraries) {
  fmt::print("Attune {} (commit {}), compiled by {}\n\n", library_version(), source_commit(),
             compiler_version());
  const int cores = usable_cores();
  fmt::print("CPU: {}, {} core{} for this process\n", cpu_model(), cores, cores == 1 ? "" : "s");
  std::vector<std::vector<std::string>> sets;
  for (const Isa isa : kAllIsas) {
    const std::string missing = missing_for(isa);
    sets.push_back(
        {"  " + std::string(to_string(isa)), missing.empty() ? "yes" : "no: " + missing});
  }
  fmt::print("{}\n", table(sets));
  fmt::print("GPU, for device=cuda:\n");
  for (const SharedLibrary& library : libraries) {
    if (library.found.empty()) {
      fmt::print("  {} is missing ({}): {}\n", library.name, library.purpose, library.details);
    } else {
      fmt::print("  {} is there as {} ({}): {}\n", library.name, library.found, library.purpose,
                 library.details);
    }
  }
  int index = 0;
  for (const Expected<DeviceFacts>& gpu : gpus()) {
    if (gpu.ok()) {
      fmt::print("  GPU {}: {}, sm_{}, {} SMs, {} of shared memory a block, {} L2\n", index,
                 gpu->name, gpu->arch, gpu->sms,
                 say_bytes(static_cast<std::size_t>(gpu->shared_per_block)),
                 say_bytes(static_cast<std::size_t>(gpu->l2_bytes)));
    } else {
      fmt::print("  GPU {}: {}\n", index, gpu.status().message());
    }
    ++index;
  }
  fmt::print("\nEnvironment:\n");
  for (const EnvironmentVariable& variable : environment_variables()) {
    const char* value = value_of(variable);
    fmt::print("  {} {}: {} ({})\n", variable.name,
               value ? fmt::format("= \"{}\"", value) : std::string("is not set"), variable.meaning,
               variable.values);
  }
}

int run(const DoctorOptions& options) {
  const std::vector<SharedLibrary> libraries = gpu_libraries();
  if (options.json) {
    fmt::print("{}\n",
               to_json(libraries).dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    print_text(libraries);
  }
  return kOk;
}

}  // namespace

Command add_doctor(CLI::App& app) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* sub = app.add_subcommand("doctor", "Say what this machine offers and what is missing");
  sub->add_flag("--json", options->json, "Print JSON");
  sub->footer("Example:\n  attune doctor");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
