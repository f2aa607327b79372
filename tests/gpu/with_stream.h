// A test with a stream of its own beside the default one.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <utility>

#include "launch/device.h"
#include "launch/driver.h"
#include "tests/support/on_gpu.h"

namespace attune::testing {

class WithStream : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!no_gpu().empty()) GTEST_SKIP() << no_gpu();
    driver_ = *cuda::driver();
    // A context that stays current, as a framework has one.
    scope_.emplace(std::move(cuda::ContextScope::enter(*driver_, gpu(), nullptr)).value());
    ASSERT_EQ(driver_->stream_create(&stream_, kNonBlocking), cuda::kSuccess);
  }
  void TearDown() override {
    if (stream_ != nullptr) (void)driver_->stream_destroy(stream_);
  }

  const cuda::Driver* driver_ = nullptr;
  std::optional<cuda::ContextScope> scope_;
  cuda::Stream stream_ = nullptr;  // the default stream does not wait for it, nor it for that

 private:
  static constexpr unsigned kNonBlocking = 1;
};

}  // namespace attune::testing
