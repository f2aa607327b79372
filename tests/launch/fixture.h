// Launching against the stand-in for the driver's library, through the public API.
#pragma once

#include <gtest/gtest.h>

#include <attune/arguments.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/memory.h"
#include "tests/stand_in/control.h"

namespace attune::testing {

// The library that main() opened.
[[nodiscard]] const StandInControl& stand_in();

// Allocations of this thread on the host so far; nothing where a sanitizer counts them for itself.
[[nodiscard]] std::optional<long> allocations();

class Launching : public ::testing::Test {
 protected:
  // Two GPUs, an H200 and an L40S; no context is current.
  void SetUp() override;
  void TearDown() override;

  // A valid Problem for the GPU from words such as "dtype=bf16 sq=100"; forward unless they say so.
  [[nodiscard]] static Problem problem(const std::string& words);
  // Device memory for every tensor, on `device`. Lives as long as the test.
  [[nodiscard]] Arguments arguments(const Problem& problem, int device = 0);
  [[nodiscard]] static Plan plan(const Problem& problem, int device = -1);

  // Calls since the latest reset, without those that ask the device about itself or describe tensors.
  [[nodiscard]] static std::vector<std::string> calls();
  // Forgets the calls so far.
  static void forget();

 private:
  std::deque<cuda::DeviceBuffer> memory_;
};

}  // namespace attune::testing
