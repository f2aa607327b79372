// The test program: GoogleTest's main with the numeric grid's flags.
#include <gtest/gtest.h>

#include "tests/support/flags.h"

int main(int argc, char** argv) {
  // Before InitGoogleTest, which asks for the number of grid chunks.
  if (!attune::testing::take_flags(argc, argv)) return 2;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  attune::testing::install_crash_report();  // sanitizers print more by themselves
#endif
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
