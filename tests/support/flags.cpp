#include "tests/support/flags.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace attune::testing {
namespace {

Flags the_flags;
std::array<char, 1001> current_case{};

bool take_number(std::string_view argument, std::string_view prefix, std::uint64_t& value,
                 bool& good) {
  if (!argument.starts_with(prefix)) return false;
  const std::string_view text = argument.substr(prefix.size());
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  good = error == std::errc{} && end == text.data() + text.size();
  if (!good) {
    std::fprintf(stderr, "%.*s needs a number, e.g. %.*s100\n", static_cast<int>(argument.size()),
                 argument.data(), static_cast<int>(prefix.size()), prefix.data());
  }
  return true;
}

// Only calls that a signal handler may make.
void say(const char* text, std::size_t size) {
  if (write(STDERR_FILENO, text, size) < 0) return;
}

void report(int signal) {
  constexpr std::string_view kBefore = "\nkilled by a signal while testing:\n  ";
  say(kBefore.data(), kBefore.size());
  say(current_case.data(), std::strlen(current_case.data()));
  say("\n", 1);
  std::raise(signal);  // SA_RESETHAND: now the default action
}

}  // namespace

const Flags& flags() { return the_flags; }

bool take_flags(int& argc, char** argv) {
  int kept = 1;
  bool all_good = true;
  for (int i = 1; i < argc; ++i) {
    bool good = true;
    if (argv[i] == std::string_view("--every-kernel")) {
      the_flags.every_kernel = true;
    } else if (argv[i] == std::string_view("--huge")) {
      the_flags.huge = true;
    } else if (!take_number(argv[i], "--grid-first=", the_flags.grid_first, good) &&
               !take_number(argv[i], "--grid-count=", the_flags.grid_count, good) &&
               !take_number(argv[i], "--most-work=", the_flags.most_work, good)) {
      argv[kept++] = argv[i];
    }
    all_good = all_good && good;
  }
  argc = kept;
  return all_good;
}

void set_current_case(std::string_view text) {
  const std::size_t size = std::min(text.size(), current_case.size() - 1);
  std::memcpy(current_case.data(), text.data(), size);
  current_case[size] = '\0';
}

void install_crash_report() {
  struct sigaction action {};
  action.sa_handler = report;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) {
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace attune::testing
