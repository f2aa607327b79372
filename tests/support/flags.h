// The test program's own flags, besides GoogleTest's, and what to say when a test crashes.
#pragma once

#include <cstdint>
#include <string_view>

#ifndef ATTUNE_GRID_COUNT  // a sanitized build asks for fewer (CMake's ATTUNE_GRID_COUNT)
#define ATTUNE_GRID_COUNT 3000
#endif

namespace attune::testing {

struct Flags {
  std::uint64_t grid_first = 0;                  // --grid-first=K: the first seed
  std::uint64_t grid_count = ATTUNE_GRID_COUNT;  // --grid-count=N: how many Problems
  bool every_kernel = false;  // --every-kernel: on a GPU, each row that serves instead of two
  std::uint64_t most_work = 20'000'000;  // --most-work=N: in the emulator, multiplications of a row
  bool huge = false;  // --huge: on a GPU, the tests that take up to 50 GB and half a minute each
};

[[nodiscard]] const Flags& flags();

// Takes the flags above out of argv. False, with a message on stderr, when one has a bad value.
[[nodiscard]] bool take_flags(int& argc, char** argv);

// Remembers what is being tested: printed when the process is killed by a signal, since tensors lie
// against pages that can't be touched. Cut to 1,000 characters.
void set_current_case(std::string_view text);

// Prints the current case when a fatal signal arrives, then dies of it as usual.
void install_crash_report();

}  // namespace attune::testing
