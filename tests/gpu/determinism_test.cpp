// "deterministic: same bits on every run" of backward on a GPU: sums that blocks of threads add to in
// turns, while other work comes and goes on the multiprocessors.
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/plan.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/memory.h"
#include "tests/gpu/backward_case.h"
#include "tests/gpu/other_work.h"
#include "tests/gpu/with_stream.h"
#include "tests/support/judge.h"
#include "tests/support/on_gpu.h"
#include "tests/support/tensor_memory.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

constexpr int kRepeats = 200;

Problem parsed(const std::string& words) {
  const Expected<Problem> problem = parse("backward lse device=cuda " + words);
  EXPECT_TRUE(problem.ok()) << problem.status().message();
  return problem.ok() ? *problem : Problem{};
}

class BackwardDeterminism : public WithStream {
 protected:
  void SetUp() override {
    WithStream::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    Expected<OtherWork> other = OtherWork::make(stream_);
    ASSERT_TRUE(other.ok()) << other.status().message();
    other_.emplace(std::move(other).value());
  }

  // Runs the Problem over and over beside other work. How many results differ from the first, and in
  // what the first of those does.
  void repeat(const Problem& problem, int repeats, int& different, std::string& how) {
    Expected<BackwardCase> tensors = BackwardCase::make(problem);
    ASSERT_TRUE(tensors.ok()) << tensors.status().message();
    const Status drawn = tensors->draw(5);
    ASSERT_TRUE(drawn.ok()) << drawn.message();
    const Expected<Plan> plan = make_plan(problem);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const auto workspace = cuda::DeviceBuffer::allocate(gpu(), plan->workspace_bytes());
    ASSERT_TRUE(workspace.ok()) << workspace.status().message();
    std::vector<std::byte> first;
    for (int n = 0; n < repeats; ++n) {
      const Status queued = other_->add();
      ASSERT_TRUE(queued.ok()) << queued.message();
      // What the last run left in the workspace must not matter, nor what lies there otherwise.
      ASSERT_TRUE(workspace->fill(static_cast<unsigned char>(0xFF - n)).ok());
      ASSERT_TRUE(tensors->poison().ok());
      const Status status = plan->run(tensors->arguments(), {workspace->data(), workspace->size()});
      ASSERT_TRUE(status.ok()) << status.message();
      Expected<std::vector<std::byte>> results = tensors->results();
      ASSERT_TRUE(results.ok()) << results.status().message();
      if (n == 0) {
        first = std::move(results).value();
        const auto poison = std::count(first.begin(), first.end(), kPoison);
        ASSERT_LT(2 * poison, std::ssize(first)) << "hardly anything was written";
      } else if (*results != first && different++ == 0) {
        how = tensors->differences(first, *results);
      }
    }
    ASSERT_EQ(driver_->stream_synchronize(stream_), cuda::kSuccess);
  }

  void expect_same_bits(const std::string& words) {
    const Problem problem = parsed(words + " deterministic");
    int different = 0;
    std::string how;
    repeat(problem, kRepeats, different, how);
    EXPECT_EQ(different, 0) << print(problem) << "\n  " << how;
  }

  std::optional<OtherWork> other_;
};

TEST_F(BackwardDeterminism, GroupsOfHeads) {
  expect_same_bits("dtype=bf16 b=2 hq=8 hkv=2 sq=2048 sk=2048 d=64 mask=causal-bottom-right");
  expect_same_bits("dtype=bf16 hq=8 hkv=2 sq=2048 sk=1500 d=128 mask=causal-top-left");
}

TEST_F(BackwardDeterminism, Float32) {
  // More tiles of keys than the GPU holds at once: some wait for turns of those that came before.
  expect_same_bits("dtype=f32 b=2 hq=8 hkv=8 sq=1500 sk=2048 d=64");
}

TEST_F(BackwardDeterminism, WideHeads) {
  expect_same_bits("dtype=f16 hq=4 hkv=2 sq=1024 sk=1024 d=256 mask=causal-bottom-right");
  expect_same_bits("dtype=bf16 hq=2 hkv=1 sq=1024 sk=1024 d=320");  // sums in the workspace
}

TEST_F(BackwardDeterminism, BiasGradientThatIsSummed) {
  expect_same_bits("dtype=f16 b=3 hq=4 hkv=4 sq=1024 sk=1100 d=64 bias=f16:1h1k bias_grad");
  expect_same_bits("dtype=bf16 b=2 hq=2 hkv=2 sq=1024 sk=1024 d=64 bias=f32:11qk bias_grad");
}

TEST_F(BackwardDeterminism, Dropout) {
  expect_same_bits("dtype=bf16 b=2 hq=4 hkv=4 sq=1024 sk=2048 d=64 dropout=0.1");
}

TEST_F(BackwardDeterminism, PackedSequences) {
  expect_same_bits(
      "dtype=bf16 b=5 hq=4 hkv=2 sq=1300 sk=1300 d=64 packed=qk total_q=4500 total_k=4700 "
      "mask=causal-bottom-right");
}

TEST_F(BackwardDeterminism, SinksAndSlopes) {
  expect_same_bits(
      "dtype=bf16 b=2 hq=4 hkv=2 sq=1024 sk=1024 d=64 window=700,30 sink sink_grad alibi=head "
      "alibi_grad lse_grad");
}

// What asks for no order is as right as what does. How often it gives other bits shows that the tests
// above have something to see; that is up to the GPU, and none of them asserts it.
TEST_F(BackwardDeterminism, TheDefaultIsAsRight) {
  for (const char* words : {"dtype=f32 d=64", "dtype=bf16 d=64"}) {
    for (const char* order : {"", " deterministic"}) {
      Problem problem = parsed(std::string("hq=2 hkv=1 sq=300 sk=320 ") + words + order);
      problem.device = Device::cpu;
      EXPECT_EQ(judge_problem(problem, Distribution::normal, 3), "");
    }
  }
  int different = 0;
  std::string how;
  repeat(parsed("dtype=f32 b=2 hq=8 hkv=8 sq=1500 sk=2048 d=64"), 50, different, how);
  std::printf("without `deterministic`, %d of 49 repeats gave other bits: %s\n", different,
              how.c_str());
}

// No part of the workspace is a matrix of scores: four times the tokens take four times as much.
TEST_F(BackwardDeterminism, TheWorkspaceGrowsWithTheLength) {
  for (const char* words :
       {"dtype=bf16 d=64 mask=causal-bottom-right", "dtype=bf16 d=128", "dtype=f32 d=64",
        "dtype=f16 d=256", "dtype=bf16 d=320", "dtype=bf16 d=64 bias=bf16:1h1k bias_grad",
        "dtype=bf16 d=64 dropout=0.1 sink sink_grad alibi=head alibi_grad"}) {
    const auto bytes = [&](const std::string& length) {
      const Expected<Plan> plan =
          make_plan(parsed(std::string(words) + " b=2 hq=8 hkv=2 sq=" + length + " sk=" + length +
                           " deterministic"));
      EXPECT_TRUE(plan.ok()) << plan.status().message();
      return plan.ok() ? static_cast<double>(plan->workspace_bytes()) : 0.0;
    };
    const double one = bytes("2048");
    EXPECT_GT(one, 0) << words;
    EXPECT_LE(bytes("8192") / one, 4.1) << words;
  }
}

}  // namespace
}  // namespace attune::testing
