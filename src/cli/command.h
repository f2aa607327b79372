// What the subcommands share: how each joins the program, and what its exit code means.
#pragma once

#include <CLI/App.hpp>
#include <attune/status.hpp>
#include <functional>
#include <string_view>

namespace attune::cli {

// Exit codes, the same for every subcommand.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;    // a check failed, or Attune refused
inline constexpr int kBadUsage = 2;  // the command line itself makes no sense

// What --threads takes; more is a typing error.
inline constexpr int kMostThreads = 4096;

// A subcommand: CLI11's object, and what to do when it was named. The action returns the exit code.
struct Command {
  CLI::App* app = nullptr;
  std::function<int()> action;
};

// One function per file of the same name; each adds its subcommand to `app`.
[[nodiscard]] Command add_run(CLI::App& app);
[[nodiscard]] Command add_map(CLI::App& app);
[[nodiscard]] Command add_explain(CLI::App& app);
[[nodiscard]] Command add_list(CLI::App& app);
[[nodiscard]] Command add_doctor(CLI::App& app);
[[nodiscard]] Command add_bench(CLI::App& app);
[[nodiscard]] Command add_generate(CLI::App& app);
[[nodiscard]] Command add_compile(CLI::App& app);
[[nodiscard]] Command add_cache(CLI::App& app);
[[nodiscard]] Command add_wrap(CLI::App& app);

// "attune: <message>" on stderr; returns the exit code.
[[nodiscard]] int refuse(const Status& status);
[[nodiscard]] int bad_usage(std::string_view message);

}  // namespace attune::cli
