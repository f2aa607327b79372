// The grid, the edges and the dropout masks on kernels that run in the emulator, and tests of it.
#include <gtest/gtest.h>

#include "tests/emulator/emulated_gpu.h"
#include "tests/support/flags.h"

int main(int argc, char** argv) {
  // Before InitGoogleTest, which asks for the number of grid chunks.
  if (!attune::testing::take_flags(argc, argv)) return 2;
  attune::testing::install_crash_report();
  testing::InitGoogleTest(&argc, argv);
  attune::testing::use_emulator(static_cast<double>(attune::testing::flags().most_work));
  const int result = RUN_ALL_TESTS();
  attune::testing::print_emulated_runs();
  return result;
}
