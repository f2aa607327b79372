// The `attune` command: names the subcommands and turns every outcome into an exit code.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <array>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>

#include "cli/command.h"
#include "cli/machine.h"

namespace attune::cli {

int refuse(const Status& status) {
  fmt::print(stderr, "attune: {}\n", status.message());
  return kFailed;
}

int bad_usage(std::string_view message) {
  fmt::print(stderr, "attune: {}\n", message);
  return kBadUsage;
}

namespace {

int run_command(int argc, char** argv) {
  CLI::App app(
      "Exact fused attention, forward and backward: computed, checked and explained.\n"
      "Exit codes: 0 fine, 1 a check failed or Attune refused, 2 the command line makes no sense.",
      "attune");
  app.set_version_flag("--version", fmt::format("attune {}", library_version()),
                       "Print the version and exit");
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  const std::array commands = {add_run(app),    add_map(app),   add_explain(app),  add_list(app),
                               add_doctor(app), add_bench(app), add_generate(app), add_compile(app),
                               add_cache(app),  add_wrap(app)};
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version requests are "errors" with exit code 0.
    return app.exit(error) == 0 ? kOk : kBadUsage;
  }
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.action();
  }
  return kBadUsage;
}

}  // namespace
}  // namespace attune::cli

int main(int argc, char** argv) {
  // The library throws nothing; CLI11, JSON and the standard containers may.
  try {
    return attune::cli::run_command(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("attune: out of memory\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attune: internal error: %s\n", error.what());
  }
  return attune::cli::kFailed;
}
