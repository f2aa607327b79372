// The tests that need a GPU: the grid, the edges and the dropout masks of the CPU's tests, on the
// portable kernels, and what only a GPU has. Without one, every test says why it is skipped.
#include <gtest/gtest.h>

#include "tests/support/flags.h"
#include "tests/support/on_gpu.h"

int main(int argc, char** argv) {
  // Before InitGoogleTest, which asks for the number of grid chunks.
  if (!attune::testing::take_flags(argc, argv)) return 2;
  testing::InitGoogleTest(&argc, argv);
  attune::testing::use_gpu(0);
  return RUN_ALL_TESTS();
}
