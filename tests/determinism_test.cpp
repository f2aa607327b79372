// "deterministic: same bits on every run and for every thread count", on shapes where threads share
// work: few heads with many keys (key splitting), gradients that several tasks add to.
#include <gtest/gtest.h>

#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "tests/support/judge.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

constexpr int kThreadCounts[] = {1, 2, 3, 5, 8};

Problem deterministic(Kind kind, DType dtype) {
  Problem p;
  p.kind = kind;
  p.device = Device::cpu;
  p.dtype = dtype;
  p.d = p.dv = 32;
  p.lse = LseLayout::plain;
  p.deterministic = true;
  return p;
}

// Runs every kernel for the Problem on every thread count, twice, and expects the same bits.
void expect_same_bits(const Problem& problem) {
  Tensors tensors(problem, Distribution::normal, 7);
  if (problem.kind == Kind::backward) {
    const Expected<oracle::Result> forward = oracle::run(problem, tensors.arguments());
    ASSERT_TRUE(forward.ok()) << forward.status().message();
    tensors.set_forward(*forward);
  }
  for (const KernelSpec& kernel : available_kernels(problem.kind, problem.dtype)) {
    std::vector<std::byte> first;
    for (const int threads : kThreadCounts) {
      const Expected<Plan> plan =
          make_plan(problem, {.threads = threads, .kernel = id_of(kernel), .executor = {}});
      ASSERT_TRUE(plan.ok()) << plan.status().message();
      for (int repeat = 0; repeat < 2; ++repeat) {
        tensors.poison_outputs();
        const Status status = plan->run(tensors.arguments());
        ASSERT_TRUE(status.ok()) << status.message();
        const std::vector<std::byte> bytes = tensors.output_bytes();
        if (first.empty()) first = bytes;
        ASSERT_TRUE(bytes == first) << id_of(kernel) << " with " << threads << " threads, repeat "
                                    << repeat << ": " << print(problem);
      }
    }
  }
}

class Determinism : public ::testing::TestWithParam<DType> {};

TEST_P(Determinism, ForwardWithSplitKeys) {
  Problem p = deterministic(Kind::forward, GetParam());
  p.sq = 64;
  p.sk = 6000;
  expect_same_bits(p);
  p.sq = 1;  // decode
  p.hq = 4;
  p.hkv = 2;
  expect_same_bits(p);
}

TEST_P(Determinism, ForwardGroupedHeadsMaskAndDropout) {
  Problem p = deterministic(Kind::forward, GetParam());
  p.b = 2;
  p.hq = 6;
  p.hkv = 2;
  p.sq = 130;
  p.sk = 777;
  p.mask.causal = true;
  p.dropout = 0.25;
  p.sink = true;
  expect_same_bits(p);
}

TEST_P(Determinism, BackwardOneHead) {
  Problem p = deterministic(Kind::backward, GetParam());
  p.sq = 700;
  p.sk = 900;
  expect_same_bits(p);
}

TEST_P(Determinism, BackwardGroupedHeads) {
  Problem p = deterministic(Kind::backward, GetParam());
  p.hq = 4;
  p.sq = 200;
  p.sk = 333;
  p.mask.causal = true;
  p.lse_grad = true;
  expect_same_bits(p);
}

TEST_P(Determinism, BackwardEveryReducedGradient) {
  for (int subset = 0; subset < 16; ++subset) {
    Problem p = deterministic(Kind::backward, GetParam());
    p.b = 2;
    p.hq = 4;
    p.hkv = 2;
    p.sq = 97;
    p.sk = 150;
    p.bias = {.kind = BiasKind::additive,
              .dtype = DType::f32,
              .broadcast_b = (subset & 1) != 0,
              .broadcast_h = (subset & 2) != 0,
              .broadcast_q = (subset & 4) != 0,
              .broadcast_k = (subset & 8) != 0,
              .grad = true};
    p.alibi = PerHead::head;
    p.alibi_grad = true;
    p.sink = p.sink_grad = true;
    p.dropout = 0.1;
    expect_same_bits(p);
  }
}

TEST_P(Determinism, BackwardSharedPages) {
  Problem p = deterministic(Kind::backward, GetParam());
  p.b = 3;
  p.hq = 2;
  p.sq = 65;
  p.sk = 130;
  p.page_size = 16;
  p.pages = 10;  // 27 entries in the table: most pages belong to several sequences
  expect_same_bits(p);
}

INSTANTIATE_TEST_SUITE_P(DTypes, Determinism,
                         ::testing::Values(DType::f32, DType::f16, DType::bf16),
                         [](const ::testing::TestParamInfo<DType>& test) {
                           return std::string(to_string(test.param));
                         });

}  // namespace
}  // namespace attune::testing
