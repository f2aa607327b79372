// What tensors past 2^31 elements hold: numbers that repeat, so that any part of any tensor is known
// without being kept.
#pragma once

#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "launch/memory.h"

namespace attune::testing {

class Pattern {
 public:
  // A million different numbers would do; a prime of them falls in step with no stride.
  static constexpr std::int64_t kPrime = 16777213;  // the largest below 2^24

  explicit Pattern(DType dtype, std::int64_t period = kPrime);

  // Element `at` of a tensor that was filled with it.
  [[nodiscard]] double operator()(std::int64_t at) const;

  // Element 0 of the buffer becomes number `start` of the pattern.
  [[nodiscard]] Status fill(const cuda::DeviceBuffer& buffer, std::int64_t start = 0) const;

 private:
  DType dtype_;
  std::int64_t period_;
  std::vector<std::byte> bytes_;  // whole periods
};

}  // namespace attune::testing
