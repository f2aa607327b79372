// OtherWork: what keeps multiprocessors busy beside the run under test.
#pragma once

#include <attune/plan.hpp>
#include <attune/status.hpp>
#include <vector>

#include "launch/driver.h"
#include "tests/gpu/backward_case.h"
#include "tests/support/random.h"

namespace attune::testing {

// Forward passes on another stream: long ones that take a few multiprocessors and short ones that take
// them all, any number of them, so that blocks of the run beside them start at other times and in other
// places on every repeat.
class OtherWork {
 public:
  [[nodiscard]] static Expected<OtherWork> make(cuda::Stream stream);

  // Queues up to three of them.
  [[nodiscard]] Status add();

 private:
  struct Pass {
    BackwardCase tensors;
    Plan plan;
  };
  explicit OtherWork(cuda::Stream stream) : stream_(stream) {}

  cuda::Stream stream_;
  std::vector<Pass> passes_;
  Random random_{11};
};

}  // namespace attune::testing
