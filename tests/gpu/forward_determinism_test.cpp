// The same bits on every forward run, while other work comes and goes on the multiprocessors: rings, turns
// and votes between warps have no effect on results.
#include <gtest/gtest.h>

#include <attune/plan.hpp>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "launch/device_tensor.h"
#include "launch/memory.h"
#include "tests/gpu/other_work.h"
#include "tests/gpu/with_stream.h"
#include "tests/support/on_gpu.h"
#include "tests/support/tensor_memory.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

constexpr int kRepeats = 250;

class ForwardDeterminism : public WithStream {
 protected:
  void expect_same_bits(const std::string& words) {
    const Expected<Problem> problem = parse("forward lse device=cuda " + words);
    ASSERT_TRUE(problem.ok()) << problem.status().message();
    Expected<OtherWork> other = OtherWork::make(stream_);
    ASSERT_TRUE(other.ok()) << other.status().message();
    Tensors tensors(*problem, Distribution::outliers, 3);
    const auto copy = cuda::DeviceArguments::copy_of(*problem, tensors.arguments(), gpu());
    ASSERT_TRUE(copy.ok()) << copy.status().message();
    const Expected<Plan> plan = make_plan(*problem);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const auto workspace = cuda::DeviceBuffer::allocate(gpu(), plan->workspace_bytes());
    ASSERT_TRUE(workspace.ok()) << workspace.status().message();
    std::vector<std::vector<std::byte>> first;
    int different = 0;
    for (int n = 0; n < kRepeats; ++n) {
      const Status queued = other->add();
      ASSERT_TRUE(queued.ok()) << queued.message();
      const Status status = plan->run(copy->arguments(), {workspace->data(), workspace->size()});
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_TRUE(copy->fetch_outputs().ok());
      std::vector<std::vector<std::byte>> results;
      for (const Tensors::Output& output : tensors.outputs()) {
        results.push_back(output.memory->element_bytes());
      }
      if (n == 0) first = results;
      different += results != first ? 1 : 0;
    }
    EXPECT_EQ(different, 0) << print(*problem) << ", by " << plan->kernel();
    ASSERT_EQ(driver_->stream_synchronize(stream_), cuda::kSuccess);
  }
};

TEST_F(ForwardDeterminism, ShortAndLongSequences) {
  expect_same_bits("dtype=bf16 b=3 hq=7 hkv=7 sq=512 sk=512 d=64 mask=causal-top-left");
  expect_same_bits("dtype=f16 hq=6 hkv=2 sq=1000 sk=5000 d=128 mask=causal-bottom-right");
}

TEST_F(ForwardDeterminism, WideHeads) {
  expect_same_bits("dtype=bf16 hq=8 hkv=8 sq=1500 sk=1500 d=256 mask=causal-bottom-right");
  expect_same_bits("dtype=bf16 hq=8 hkv=1 sq=700 sk=1500 d=192 dv=128");
}

// Shares of a cluster's blocks are added in one order, whoever comes first.
TEST_F(ForwardDeterminism, SplitKeys) {
  expect_same_bits("dtype=bf16 b=2 hq=16 hkv=4 sq=5 sk=3000 d=128 mask=causal-bottom-right");
  expect_same_bits("dtype=f16 hq=4 hkv=4 sq=200 sk=5000 d=64");
  expect_same_bits("dtype=bf16 hq=8 hkv=2 sq=70 sk=2000 d=256 mask=causal-bottom-right");
}

// Whoever of two blocks of threads is ahead.
TEST_F(ForwardDeterminism, KeysForTwo) {
  expect_same_bits("dtype=bf16 hq=36 hkv=36 sq=1000 sk=512 d=128");
  expect_same_bits("dtype=f16 b=2 hq=16 hkv=4 sq=2000 sk=2000 d=128 mask=causal-bottom-right");
}

TEST_F(ForwardDeterminism, PackedSequencesAndFeatures) {
  expect_same_bits(
      "dtype=bf16 b=5 hq=4 hkv=2 sq=1300 sk=1300 d=64 packed=qk total_q=4500 total_k=4700 "
      "mask=causal-bottom-right");
  expect_same_bits("dtype=bf16 b=2 hq=4 hkv=4 sq=777 sk=1029 d=64 dropout=0.1");
  expect_same_bits("dtype=f16 b=2 hq=4 hkv=4 sq=777 sk=1032 d=64 bias=f16 alibi=head softcap=20");
}

}  // namespace
}  // namespace attune::testing
