// Plan::run as a caller meets it: own executors, concurrent calls, own workspaces, and refusals that
// write nothing.
#include <gtest/gtest.h>

#include <atomic>
#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/judge.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

Problem problem_of(const KernelSpec& kernel) {
  Problem p;
  p.kind = kernel.kind;
  p.device = Device::cpu;
  p.dtype = kernel.dtype;
  p.b = 2;
  p.hq = 4;
  p.hkv = 2;
  p.sq = 70;
  p.sk = 260;
  p.d = p.dv = 48;
  p.mask.causal = true;
  p.lse = LseLayout::plain;
  p.deterministic = true;
  return p;
}

// Backward needs an o and an LSE; which ones does not matter for the same bits.
void prepare(const Problem& p, Tensors& tensors) {
  if (p.kind == Kind::forward) return;
  const Expected<oracle::Result> forward = oracle::run(p, tensors.arguments());
  ASSERT_TRUE(forward.ok()) << forward.status().message();
  tensors.set_forward(*forward);
}

TEST(Run, OwnExecutorsGiveTheSameBits) {
  std::atomic<int> calls = 0;
  const Executor backwards = [&](int workers, const std::function<void(int)>& body) {
    ++calls;
    for (int worker = workers; worker-- > 0;) body(worker);
  };
  const Executor threads = [&](int workers, const std::function<void(int)>& body) {
    ++calls;
    std::vector<std::thread> running;
    for (int worker = 0; worker < workers; ++worker) running.emplace_back(body, worker);
    for (std::thread& thread : running) thread.join();
  };
  for (const KernelSpec& kernel : available_kernels()) {
    const Problem p = problem_of(kernel);
    Tensors tensors(p, Distribution::normal, 1);
    ASSERT_NO_FATAL_FAILURE(prepare(p, tensors));
    std::vector<std::byte> first;
    for (const Executor& executor : {Executor{}, backwards, threads}) {
      const Expected<Plan> plan =
          make_plan(p, {.threads = 3, .kernel = id_of(kernel), .executor = executor});
      ASSERT_TRUE(plan.ok()) << plan.status().message();
      tensors.poison_outputs();
      const int before = calls;
      const Status status = plan->run(tensors.arguments());
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(calls > before, static_cast<bool>(executor)) << "whose executor was used?";
      if (first.empty()) first = tensors.output_bytes();
      EXPECT_TRUE(tensors.output_bytes() == first) << id_of(kernel);
    }
  }
}

TEST(Run, OnePlanServesFourThreadsAtOnce) {
  for (const KernelSpec& kernel : available_kernels()) {
    const Problem p = problem_of(kernel);
    const Expected<Plan> plan =
        make_plan(p, {.threads = 2, .kernel = id_of(kernel), .executor = {}});
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    std::deque<Tensors> tensors;
    for (int caller = 0; caller < 4; ++caller) {
      ASSERT_NO_FATAL_FAILURE(prepare(p, tensors.emplace_back(p, Distribution::normal, 1)));
    }
    std::vector<std::thread> callers;
    std::atomic<int> failures = 0;
    for (int caller = 0; caller < 4; ++caller) {
      callers.emplace_back([&, caller] {
        const Arguments& arguments = tensors[static_cast<std::size_t>(caller)].arguments();
        std::vector<std::byte> workspace(plan->workspace_bytes());
        for (int repeat = 0; repeat < 3; ++repeat) {
          const Status status =
              caller % 2 == 0 ? plan->run(arguments) : plan->run(arguments, workspace);
          if (!status.ok()) ++failures;
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(failures, 0);
    for (std::size_t caller = 1; caller < tensors.size(); ++caller) {
      EXPECT_TRUE(tensors[caller].output_bytes() == tensors[0].output_bytes()) << id_of(kernel);
    }
  }
}

TEST(Run, WorkspaceMayLieAnywhereAndHoldAnything) {
  for (const KernelSpec& kernel : available_kernels()) {
    const Problem p = problem_of(kernel);
    Tensors tensors(p, Distribution::normal, 1);
    ASSERT_NO_FATAL_FAILURE(prepare(p, tensors));
    const Expected<Plan> plan =
        make_plan(p, {.threads = 3, .kernel = id_of(kernel), .executor = {}});
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const std::size_t bytes = plan->workspace_bytes();
    std::vector<std::byte> first;
    for (const std::size_t shift : {0U, 1U, 7U, 60U}) {
      std::vector<std::byte> memory(bytes + 128, kPoison);
      tensors.poison_outputs();
      const Status status = plan->run(tensors.arguments(), std::span(memory).subspan(shift, bytes));
      ASSERT_TRUE(status.ok()) << status.message();
      if (first.empty()) first = tensors.output_bytes();
      EXPECT_TRUE(tensors.output_bytes() == first) << id_of(kernel) << " shift " << shift;
      for (std::size_t at = 0; at < memory.size(); ++at) {
        if (at >= shift && at < shift + bytes) continue;
        ASSERT_EQ(memory[at], kPoison) << id_of(kernel) << " wrote outside of its workspace";
      }
    }
  }
}

TEST(Run, RefusesASmallWorkspaceAndWritesNothing) {
  for (const KernelSpec& kernel : available_kernels()) {
    const Problem p = problem_of(kernel);
    Tensors tensors(p, Distribution::normal, 1);
    ASSERT_NO_FATAL_FAILURE(prepare(p, tensors));
    const Expected<Plan> plan =
        make_plan(p, {.threads = 2, .kernel = id_of(kernel), .executor = {}});
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    if (plan->workspace_bytes() == 0) continue;
    std::vector<std::byte> memory(plan->workspace_bytes() - 1);
    tensors.poison_outputs();
    const Status status = plan->run(tensors.arguments(), memory);
    EXPECT_EQ(status.code(), Code::invalid_argument) << id_of(kernel);
    EXPECT_NE(status.message().find(std::to_string(plan->workspace_bytes())), std::string::npos)
        << status.message();
    EXPECT_TRUE(tensors.outputs_untouched()) << id_of(kernel);
  }
}

struct Mistake {
  const char* what;
  std::function<void(Arguments&)> make;
};

void expect_refusals(const Problem& p, const std::vector<Mistake>& mistakes) {
  Tensors tensors(p, Distribution::normal, 1);
  ASSERT_NO_FATAL_FAILURE(prepare(p, tensors));
  for (const KernelSpec& kernel : available_kernels(p.kind, p.dtype)) {
    const Expected<Plan> plan =
        make_plan(p, {.threads = 2, .kernel = id_of(kernel), .executor = {}});
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    tensors.poison_outputs();
    for (const Mistake& mistake : mistakes) {
      Arguments wrong = tensors.arguments();
      mistake.make(wrong);
      const Status status = plan->run(wrong);
      EXPECT_EQ(status.code(), Code::invalid_argument) << mistake.what << ": " << status.message();
      EXPECT_FALSE(status.message().empty()) << mistake.what;
      ASSERT_TRUE(tensors.outputs_untouched()) << mistake.what;
      ASSERT_EQ(tensors.damage(), "") << mistake.what;
    }
    const Status status = plan->run(tensors.arguments());  // the mistakes were what was wrong
    EXPECT_TRUE(status.ok()) << status.message();
  }
}

TEST(Run, RefusesWrongTensorsAndWritesNothing) {
  Problem p = problem_of(
      {.kind = Kind::forward, .family = Family::cpu, .dtype = DType::f32, .isa = Isa::generic});
  expect_refusals(
      p, {
             {"no q", [](Arguments& a) { a.q = {}; }},
             {"q without memory", [](Arguments& a) { a.q.data = nullptr; }},
             {"q of another dtype", [](Arguments& a) { a.q.dtype = DType::f16; }},
             {"q of rank 3", [](Arguments& a) { a.q.rank = 3; }},
             {"k one key short", [](Arguments& a) { a.k.shape[1] -= 1; }},
             {"v with other heads", [](Arguments& a) { a.v.shape[2] += 1; }},
             {"a negative extent", [](Arguments& a) { a.v.shape[3] = -1; }},
             {"strides other than the Problem's", [](Arguments& a) { a.k.strides[1] += 1; }},
             {"no o", [](Arguments& a) { a.o = {}; }},
             {"o on itself", [](Arguments& a) { a.o.strides[2] = 0; }},
             {"o backwards", [](Arguments& a) { a.o.strides[3] = -1; }},
             {"o over q", [](Arguments& a) { a.o.data = a.q.data; }},
             {"no LSE", [](Arguments& a) { a.lse = {}; }},
             {"LSE in f64", [](Arguments& a) { a.lse.dtype = DType::f64; }},
             {"LSE on itself", [](Arguments& a) { a.lse.strides[1] = 0; }},
             {"a sink that the Problem has not", [](Arguments& a) { a.sink = a.lse; }},
         });
}

TEST(Run, RefusesWrongGradientsAndWritesNothing) {
  Problem p = problem_of(
      {.kind = Kind::backward, .family = Family::cpu, .dtype = DType::bf16, .isa = Isa::generic});
  p.bias.kind = BiasKind::additive;
  p.bias.grad = true;
  expect_refusals(
      p, {
             {"no grad_o", [](Arguments& a) { a.grad_o = {}; }},
             {"grad_o of another dtype", [](Arguments& a) { a.grad_o.dtype = DType::f32; }},
             {"no o", [](Arguments& a) { a.o = {}; }},
             {"no LSE", [](Arguments& a) { a.lse = {}; }},
             {"no grad_q", [](Arguments& a) { a.grad_q = {}; }},
             {"grad_k on itself", [](Arguments& a) { a.grad_k.strides[1] = 1; }},
             {"grad_v of another shape", [](Arguments& a) { a.grad_v.shape[0] = 1; }},
             {"grad_v backwards", [](Arguments& a) { a.grad_v.strides[1] *= -1; }},
             {"no grad_bias", [](Arguments& a) { a.grad_bias = {}; }},
             {"grad_bias in bool", [](Arguments& a) { a.grad_bias.dtype = DType::boolean; }},
         });
}

TEST(Run, RefusesWrongLengthsAndWritesNothing) {
  Problem p = problem_of(
      {.kind = Kind::forward, .family = Family::cpu, .dtype = DType::f32, .isa = Isa::generic});
  p.packed_q = true;
  p.total_q = 100;
  p.page_size = 16;
  p.pages = 40;
  p.key_lengths = true;
  static std::vector<std::int32_t> good_lengths = {200, 33}, long_lengths = {200, 261},
                                   negative_lengths = {-1, 4};
  static std::vector<std::int32_t> falling = {0, 60, 40}, past_the_end = {0, 60, 101},
                                   too_long = {0, 71, 90}, late = {1, 50, 90};
  static std::vector<std::int32_t> bad_page(34, 0), negative_page(34, 0);
  bad_page[12] = 40;       // key 192 of sequence 0
  negative_page[19] = -1;  // key 32 of sequence 1
  const auto view = [](std::vector<std::int32_t>& values) {
    return TensorView::contiguous(values.data(), DType::i32,
                                  {static_cast<std::int64_t>(values.size())});
  };
  const auto table = [&](std::vector<std::int32_t>& values) {
    return TensorView::contiguous(values.data(), DType::i32, {2, 17});
  };
  expect_refusals(
      p,
      {
          {"no key lengths", [](Arguments& a) { a.key_lengths = {}; }},
          {"a length past sk", [&](Arguments& a) { a.key_lengths = view(long_lengths); }},
          {"a negative length", [&](Arguments& a) { a.key_lengths = view(negative_lengths); }},
          {"lengths in i64", [](Arguments& a) { a.key_lengths.dtype = DType::i64; }},
          {"cu_seqlens falling", [&](Arguments& a) { a.cu_seqlens_q = view(falling); }},
          {"cu_seqlens past the end", [&](Arguments& a) { a.cu_seqlens_q = view(past_the_end); }},
          {"a sequence longer than sq", [&](Arguments& a) { a.cu_seqlens_q = view(too_long); }},
          {"cu_seqlens not from 0", [&](Arguments& a) { a.cu_seqlens_q = view(late); }},
          {"no page table", [](Arguments& a) { a.page_table = {}; }},
          {"a page past the last",
           [&](Arguments& a) {
             a.key_lengths = view(good_lengths);
             a.page_table = table(bad_page);
           }},
          {"a negative page",
           [&](Arguments& a) {
             a.key_lengths = view(good_lengths);
             a.page_table = table(negative_page);
           }},
      });
}

TEST(Plans, RefuseWhatCannotBe) {
  Problem p = problem_of(
      {.kind = Kind::forward, .family = Family::cpu, .dtype = DType::f32, .isa = Isa::generic});
  const auto message = [&](const Problem& problem, const PlanOptions& options) {
    const Expected<Plan> plan = make_plan(problem, options);
    EXPECT_FALSE(plan.ok());
    return plan.ok() ? std::string() : plan.status().message();
  };
  EXPECT_NE(message(p, {.threads = 0, .kernel = "fwd.cpu.f32.nonsense", .executor = {}})
                .find("fwd.cpu.f32.nonsense"),
            std::string::npos);
  for (const KernelSpec& kernel : kernel_table()) {
    if (kernel.kind == p.kind && kernel.dtype == p.dtype) continue;
    EXPECT_NE(message(p, {.threads = 0, .kernel = id_of(kernel), .executor = {}}), "");
  }
  EXPECT_NE(message(p, {.threads = -1, .kernel = {}, .executor = {}}).find("-1"),
            std::string::npos);
  p.hq = 5;
  EXPECT_NE(message(p, {}).find("hq = 5"), std::string::npos);
}

}  // namespace
}  // namespace attune::testing
