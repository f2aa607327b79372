// BackwardCase: a backward Problem with contiguous tensors on the GPU. o and the LSE come from Attune's
// own forward pass, so that Problems may be larger than the oracle could follow.
#pragma once

#include <attune/arguments.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "launch/memory.h"

namespace attune::testing {

class BackwardCase {
 public:
  // Precondition: a backward Problem with an LSE, for a GPU. Nothing is drawn yet.
  [[nodiscard]] static Expected<BackwardCase> make(const Problem& problem);

  // Fills the inputs with random numbers and runs the forward pass. Pointers stay. Precondition: no work
  // on this memory is under way.
  [[nodiscard]] Status draw(std::uint64_t seed);

  [[nodiscard]] const Problem& problem() const { return problem_; }
  [[nodiscard]] const Arguments& arguments() const { return arguments_; }
  // Those of the forward pass alone: a call that gets more is refused.
  [[nodiscard]] Arguments forward_arguments() const;

  // Makes every byte of the gradients a NaN's.
  [[nodiscard]] Status poison() const;
  // Waits for the default stream and copies all gradients, one after another.
  [[nodiscard]] Expected<std::vector<std::byte>> results() const;
  // Empty, or how many bytes differ, by gradient.
  [[nodiscard]] std::string differences(const std::vector<std::byte>& one,
                                        const std::vector<std::byte>& other) const;

 private:
  struct Tensor {
    const char* name;
    TensorView view;
    bool output;
    cuda::DeviceBuffer memory;
  };

  [[nodiscard]] Status allocate();
  // What an input holds, as bytes of its dtype.
  [[nodiscard]] std::vector<std::byte> values(const Tensor& tensor, std::uint64_t seed) const;

  Problem problem_;
  Arguments arguments_;
  std::deque<Tensor> tensors_;
  cuda::DeviceBuffer dropout_state_;
};

// Its forward pass, without what only a backward Problem has.
[[nodiscard]] Problem forward_of(Problem problem);

}  // namespace attune::testing
