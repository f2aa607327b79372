// Launching against the stand-in for the driver's library, with a stand-in for the compiler too.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "launch/driver.h"
#include "registry/registry.h"
#include "tests/launch/fixture.h"
#include "tests/support/cubins.h"

namespace attune::testing {

namespace {

const StandInControl* control = nullptr;
std::atomic<int> compiled{0};

}  // namespace

const StandInControl& stand_in() { return *control; }

}  // namespace attune::testing

int main(int argc, char** argv) {
  using namespace attune;
  using namespace attune::testing;
  ::testing::InitGoogleTest(&argc, argv);
  setenv("ATTUNE_CUDA_DRIVER", ATTUNE_STAND_IN, 1);
  set_process_registry(counting_options(compiled));
  void* library = dlopen(ATTUNE_STAND_IN, RTLD_NOW | RTLD_LOCAL);
  control = library == nullptr ? nullptr
                               : static_cast<const StandInControl*>(dlsym(library, kStandInSymbol));
  if (control == nullptr) {
    std::fprintf(stderr, "the stand-in does not open: %s\n", dlerror());
    return 1;
  }
  return RUN_ALL_TESTS();
}
