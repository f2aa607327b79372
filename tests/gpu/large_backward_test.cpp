// Backward passes past 2^31 elements and over 65,536 tokens, judged on samples.
#include "tests/gpu/large_backward.h"

#include <gtest/gtest.h>

#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "launch/device_tensor.h"
#include "launch/memory.h"
#include "problem/shapes.h"
#include "tests/gpu/pattern.h"
#include "tests/support/flags.h"
#include "tests/support/judge.h"
#include "tests/support/on_gpu.h"
#include "tests/support/scalar.h"
#include "tests/support/tensor_memory.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

const std::byte* element(const TensorView& view, const Index& index) {
  std::int64_t at = 0;
  for (std::size_t axis = 0; axis < index.size(); ++axis) at += index[axis] * view.strides[axis];
  return static_cast<const std::byte*>(view.data) +
         at * static_cast<std::int64_t>(size_of(view.dtype));
}

class LargeBackwards : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!no_gpu().empty()) GTEST_SKIP() << no_gpu();
    if (!flags().huge) GTEST_SKIP() << "takes up to 50 GB: --huge";
  }

  static Problem parsed(const std::string& words) {
    const Expected<Problem> problem = parse("backward lse device=cuda " + words);
    EXPECT_TRUE(problem.ok()) << problem.status().message();
    return problem.ok() ? *problem : Problem{};
  }

  static Problem on_cpu(Problem problem) {
    problem.device = Device::cpu;
    return problem;
  }

  // Runs it; skips the test where the GPU is too small.
  static void run(LargeBackward& large) {
    const Status status = large.run();
    if (status.code() == Code::out_of_memory) GTEST_SKIP() << status.message();
    ASSERT_TRUE(status.ok()) << status.message();
  }
};

TEST_F(LargeBackwards, TokensPastTwoToTheThirtyOne) {
  // 2.2e9 elements of each tensor and of dQ's sums; token 262,144 is the first past 2^31.
  const Problem p = parsed("dtype=bf16 hq=64 hkv=64 sq=270000 sk=270000 d=128 window=15,0");
  const Pattern pattern(p.dtype);
  LargeBackward large(p, pattern, pattern);
  run(large);
  if (IsSkipped() || HasFatalFailure()) return;
  for (const std::int64_t key : {0, 131071, 262143, 262144, 269998}) {
    for (const std::int64_t h : {0, 63}) {
      EXPECT_EQ(large.judge_keys(0, h, {key, key + 2}), "");
    }
  }
}

TEST_F(LargeBackwards, GroupsPastTwoToTheThirtyOne) {
  // 2.4e9 elements of q, o and their gradients, of one key head.
  const Problem p = parsed("dtype=f16 hq=64 hkv=1 sq=290000 sk=290000 d=128 window=15,0");
  const Pattern pattern(p.dtype);
  LargeBackward large(p, pattern, pattern);
  run(large);
  if (IsSkipped() || HasFatalFailure()) return;
  for (const std::int64_t key : {0, 262143, 289998}) {
    EXPECT_EQ(large.judge_keys(0, 0, {key, key + 2}), "");
  }
}

TEST_F(LargeBackwards, SequencesPastTwoToTheThirtyOne) {
  // An odd head dim, so that the rows with strided loads are meant.
  const Problem p = parsed("dtype=bf16 b=70000 hq=8 hkv=4 sq=60 sk=40 d=65");
  const Pattern pattern(p.dtype);
  LargeBackward large(p, pattern, pattern);
  run(large);
  if (IsSkipped() || HasFatalFailure()) return;
  for (const std::int64_t b : {0, 68829, 68830, 69999}) {  // q passes 2^31 in between
    for (const std::int64_t h : {0, 3}) EXPECT_EQ(large.judge_keys(b, h, {0, p.sk}), "");
  }
}

TEST_F(LargeBackwards, BiasGradientPastTwoToTheThirtyOne) {
  // 2.5e9 elements of the bias and of its gradient, summed over two heads. The last keys have few queries.
  const Problem p = parsed(
      "dtype=bf16 hq=2 hkv=1 sq=50000 sk=50000 d=64 mask=causal-bottom-right bias=bf16:11qk "
      "bias_grad");
  const Pattern pattern(p.dtype);
  LargeBackward large(p, pattern, pattern);
  run(large);
  if (IsSkipped() || HasFatalFailure()) return;
  for (const std::int64_t query : {0, 25000, 42948, 42950}) {  // 42,949 passes 2^31
    EXPECT_EQ(large.judge_queries(0, 0, {query, query + 2}), "");
  }
  EXPECT_EQ(large.judge_keys(0, 0, {49996, 50000}), "");
}

TEST_F(LargeBackwards, ManyTokensCausal) {
  const Problem p = parsed(
      "dtype=bf16 sq=65536 sk=65536 d=32 mask=causal-bottom-right "
      "deterministic");
  const Pattern pattern(p.dtype);
  LargeBackward large(p, pattern, pattern);
  run(large);
  if (IsSkipped() || HasFatalFailure()) return;
  for (const std::int64_t query : {0, 32767, 65531}) {
    EXPECT_EQ(large.judge_queries(0, 0, {query, query + 4}), "");
  }
  EXPECT_EQ(large.judge_keys(0, 0, {65532, 65536}), "");
}

TEST_F(LargeBackwards, ManyTokensInAWindow) {
  for (const char* dtype : {"f32", "bf16"}) {
    const Problem p = parsed(std::string("sq=65536 sk=65536 d=32 window=200,100 dtype=") + dtype);
    const Pattern pattern(p.dtype);
    LargeBackward large(p, pattern, pattern);
    run(large);
    if (IsSkipped() || HasFatalFailure()) return;
    for (const std::int64_t key : {0, 32767, 65532}) {
      EXPECT_EQ(large.judge_keys(0, 0, {key, key + 4}), "");
    }
  }
}

TEST_F(LargeBackwards, ManyTokensThatAllSeeEachOther) {
  constexpr std::int64_t kPeriod = 48;  // no tile is like the next
  const Problem p = parsed("dtype=f32 sq=65568 sk=65536 d=32");
  ASSERT_EQ(p.sq % kPeriod, 0);
  const Pattern queries(p.dtype, kPeriod * p.d), others(p.dtype);
  LargeBackward large(p, queries, others);
  run(large);
  if (IsSkipped() || HasFatalFailure()) return;
  for (const std::int64_t query : {0, 32767, 65564}) {
    EXPECT_EQ(large.judge_queries(0, 0, {query, query + 4}), "");
  }
  EXPECT_EQ(large.judge_repeated(kPeriod, {32760, 32776}), "");
}

// Elements of every tensor, gradients too, that lie 2^31 and more apart: tokens far from each other, with
// heads and sequences between them.
TEST_F(LargeBackwards, StridesPastTwoToTheThirtyOne) {
  constexpr std::int64_t kStep = (std::int64_t{1} << 30) + 64;
  constexpr Problem::Strides kStrides = {64, kStep, kStep / 2, 1};
  constexpr std::size_t kRow = 32;  // bytes
  const Problem on_host = on_cpu(parsed("dtype=f16 b=2 hq=2 hkv=2 sq=4 sk=5 d=16"));
  Tensors tensors(on_host, Distribution::normal, 9);
  const Expected<Reference> reference = make_reference(on_host, tensors);
  ASSERT_TRUE(reference.ok()) << reference.status().message();
  const auto memory = cuda::DeviceBuffer::allocate(gpu(), static_cast<std::size_t>(kStep) * 10);
  if (!memory.ok()) GTEST_SKIP() << memory.status().message();
  for (const std::int64_t alignment : {16, 2}) {  // a row with whole loads, and one for any strides
    tensors.poison_outputs();
    ASSERT_TRUE(memory->fill(0xFF).ok());
    Problem p = on_host;
    p.device = Device::cuda;
    p.alignment = alignment;
    p.q_strides = p.k_strides = p.v_strides = p.o_strides = kStrides;
    const auto copy = cuda::DeviceArguments::copy_of(on_host, tensors.arguments(), gpu());
    ASSERT_TRUE(copy.ok()) << copy.status().message();
    Arguments a = copy->arguments();  // of which the LSE alone stays where it is
    std::size_t start = 0;
    std::map<std::string_view, std::size_t> starts;
    // Byte of the row that an element begins.
    const auto row_at = [&](std::string_view name, const Index& i) {
      const std::int64_t at = i[0] * kStrides[0] + i[1] * kStrides[1] + i[2] * kStrides[2];
      return starts.at(name) + static_cast<std::size_t>(2 * at);
    };
    for (const TensorSpec& spec : tensors_of(on_host)) {
      if (spec.role == Role::unused || spec.rank != 4) continue;
      starts[spec.name] = start += 8192;
      TensorView& view = a.*spec.view;
      view.data = memory->data() + start;
      view.strides = kStrides;
      if (spec.role == Role::output) continue;
      TensorMemory row(p.dtype, {16});
      for_each_index(tensors.arguments().*spec.view, [&](const Index& i) {
        row.set(i[3], load_scalar(element(tensors.arguments().*spec.view, i), p.dtype));
        if (i[3] < 15) return;
        const Status status = memory->write(row.view().data, kRow, row_at(spec.name, i));
        EXPECT_TRUE(status.ok()) << status.message();
      });
    }
    const Expected<Plan> plan = make_plan(p);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    Status status = plan->run(a);
    ASSERT_TRUE(status.ok()) << status.message();
    status = cuda::synchronize(gpu());
    ASSERT_TRUE(status.ok()) << status.message();
    for (const Tensors::Output& output : tensors.outputs()) {
      TensorMemory row(p.dtype, {16});
      for_each_index(output.memory->view(), [&](const Index& i) {
        if (i[3] == 0) {
          const Status read = memory->read(row.view().data, kRow, row_at(output.name, i));
          EXPECT_TRUE(read.ok()) << read.message();
        }
        output.memory->set(i, row.get(i[3]));
      });
      EXPECT_EQ(compare_tensor(output.name, output.memory->view(), output.result, *reference), "")
          << plan->kernel();
    }
  }
}

}  // namespace
}  // namespace attune::testing
