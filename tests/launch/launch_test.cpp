// What a run asks of the driver: calls and their order, grids, attributes, parameters.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <attune/attention.hpp>
#include <attune/plan.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "launch/kernel.h"
#include "tests/launch/fixture.h"

namespace attune::testing {
namespace {

using Names = std::vector<std::string>;

TEST_F(Launching, FirstRunLoadsAndLaterOnesOnlyLaunch) {
  const Problem p = problem("dtype=bf16 b=2 hq=4 hkv=2 sq=300 sk=500 d=128");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 1);
  EXPECT_EQ(stand_in().count("cuFuncSetAttribute"), 1);
  EXPECT_EQ(stand_in().count("cuLaunchKernelEx"), 1);
  const StandInLaunch& latest = *stand_in().latest();
  EXPECT_STREQ(latest.function, "attune_kernel");
  EXPECT_EQ(latest.context, stand_in().primary(0));
  EXPECT_EQ(stand_in().current(), nullptr) << "the context that was current is again";
  forget();
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(calls(),
            (Names{"cuCtxGetCurrent", "cuCtxPushCurrent", "cuLaunchKernelEx", "cuCtxPopCurrent"}));
}

TEST_F(Launching, UsesTheCurrentContextOfTheDevice) {
  void* mine = stand_in().create_context(0);
  stand_in().set_current(mine);
  const Problem p = problem("dtype=f16 sq=64 d=64");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(stand_in().latest()->context, mine);
  EXPECT_EQ(stand_in().current(), mine);
  forget();
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(calls(), (Names{"cuCtxGetCurrent", "cuCtxGetDevice", "cuLaunchKernelEx"}));
}

TEST_F(Launching, LeavesTheContextOfAnotherDeviceAsItWas) {
  void* other = stand_in().create_context(1);
  const Problem p = problem("dtype=f16 sq=64 d=64");
  const Arguments a = arguments(p);
  const Plan made = plan(p, 0);
  stand_in().set_current(other);
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(stand_in().latest()->context, stand_in().primary(0));
  EXPECT_EQ(stand_in().current(), other);
}

TEST_F(Launching, TakesTheContextOfTheStream) {
  void* mine = stand_in().create_context(0);
  const Problem p = problem("dtype=f16 sq=64 d=64");
  Arguments a = arguments(p);
  const Plan made = plan(p, 0);
  a.stream = stand_in().create_stream(mine);
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(stand_in().latest()->context, mine);
  EXPECT_EQ(stand_in().latest()->stream, a.stream);
  EXPECT_EQ(stand_in().current(), nullptr);

  a.stream = stand_in().create_stream(stand_in().create_context(1));
  const Status status = made.run(a);
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_NE(status.message().find("not one of GPU 0"), std::string::npos) << status.message();
  EXPECT_EQ(stand_in().current(), nullptr);
}

// A context at the address of one that is gone has none of its modules.
TEST_F(Launching, LoadsAgainIntoANewContextAtTheSameAddress) {
  const Problem p = problem("dtype=f16 sq=64 d=64");
  const Arguments a = arguments(p);
  const Plan made = plan(p, 0);
  void* first = stand_in().create_context(0);
  stand_in().set_current(first);
  ASSERT_TRUE(made.run(a).ok());
  stand_in().set_current(nullptr);
  stand_in().destroy_context(first);
  void* second = stand_in().create_context(0);
  ASSERT_EQ(second, first) << "the stand-in should reuse the address";
  stand_in().set_current(second);
  forget();
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 1);
}

TEST_F(Launching, ServesTwoDevicesInTurn) {
  const Problem p = problem("dtype=bf16 sq=100 d=64");
  const Arguments on_first = arguments(p, 0), on_second = arguments(p, 1);
  const Plan first = plan(p, 0), second = plan(p, 1);
  EXPECT_EQ(first.device_index(), 0);
  EXPECT_EQ(second.device_index(), 1);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(first.run(on_first).ok());
    EXPECT_EQ(stand_in().latest()->context, stand_in().primary(0));
    const Status status = second.run(on_second);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(stand_in().latest()->context, stand_in().primary(1));
  }
  PlanOptions options;
  options.device_index = 2;
  const Expected<Plan> third = make_plan(p, options);
  ASSERT_FALSE(third.ok());
  EXPECT_NE(third.status().message().find("device_index = 2, but there are 2 GPUs"),
            std::string::npos)
      << third.status().message();
}

// What the device offers decides, not what its architecture could have.
TEST_F(Launching, ChoosesForTheDeviceAtHand) {
  const Problem p = problem("dtype=bf16 sq=100 d=256");
  EXPECT_NE(plan(p, 0).kernel().find(".d256."), std::string_view::npos);
  const StandInDevice small{.arch = 80, .shared_per_block = 48 * 1024};
  stand_in().reset(&small, 1);
  const Expected<std::string> words = explain(p);
  ASSERT_TRUE(words.ok());
  EXPECT_NE(words->find("sm_80 offers 49152"), std::string::npos) << *words;
}

TEST_F(Launching, ThreadsThatRaceLoadOnce) {
  const Problem p = problem("dtype=bf16 sq=100 d=96 dropout=0.5");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  constexpr int kThreads = 8;
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int n = 0; n < 50; ++n) failed += made.run(a).ok() ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 1);
  EXPECT_EQ(stand_in().launches(), kThreads * 50);
}

TEST_F(Launching, PrepareLeavesNothingToLoad) {
  const Problem p = problem("dtype=bf16 sq=100 d=32");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_TRUE(made.prepare().ok());
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 1);
  EXPECT_EQ(stand_in().launches(), 0);
  EXPECT_NE(made.explain().find("registers"), std::string::npos) << made.explain();
  forget();
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 0);
}

TEST_F(Launching, LoadsWithoutHarmWhileAStreamIsBeingCaptured) {
  void* context = stand_in().create_context(0);
  stand_in().set_current(context);
  const Problem p = problem("dtype=f16 sq=100 d=32");
  Arguments a = arguments(p);
  const Plan made = plan(p);
  a.stream = stand_in().create_stream(context);
  const cuda::Driver& driver = **cuda::driver();
  const auto stream = static_cast<cuda::Stream>(a.stream);
  ASSERT_EQ(driver.capture_begin(stream, 0), cuda::kSuccess);
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_TRUE(stand_in().capture_is_valid(a.stream));
  cuda::Graph graph = nullptr;
  ASSERT_EQ(driver.capture_end(stream, &graph), cuda::kSuccess);
  // The thread's own mode is what it was: what may synchronise is refused again.
  ASSERT_EQ(driver.capture_begin(stream, 0), cuda::kSuccess);
  EXPECT_NE(driver.context_synchronize(), cuda::kSuccess);
  EXPECT_NE(driver.capture_end(stream, &graph), cuda::kSuccess);
}

TEST_F(Launching, AsksForSharedMemoryOnlyAbove48KiB) {
  for (const char* d : {"32", "256"}) {
    const Problem p = problem(std::string("dtype=f16 sq=64 d=") + d);
    const Arguments a = arguments(p);
    const Plan made = plan(p);
    stand_in().set_current(stand_in().create_context(0));
    ASSERT_TRUE(made.run(a).ok());
    const bool large = stand_in().latest()->shared_bytes > 48 * 1024;
    EXPECT_EQ(stand_in().count("cuFuncSetAttribute"), large ? 1 : 0) << d;
    stand_in().set_current(nullptr);
  }
}

TEST_F(Launching, FoldsSeventyThousandHeads) {
  const Problem p = problem("dtype=f32 b=1000 hq=70 hkv=70 sq=3 sk=5 d=8");
  const Arguments a = arguments(p);
  ASSERT_TRUE(plan(p).run(a).ok());
  const StandInLaunch& latest = *stand_in().latest();
  EXPECT_EQ(latest.params.tiles, 70000);
  EXPECT_EQ(latest.grid_x, 70000U);
  EXPECT_EQ(latest.grid_y, 1U);
}

TEST_F(Launching, FoldsMoreTilesThanFitOneSide) {
  // 3 * 2^30 heads of one query each.
  const Problem p = problem(
      "dtype=f16 b=3072 hq=1048576 hkv=1 sq=1 sk=1 d=8 q_strides=8,8,8,1 k_strides=8,8,8,1 "
      "v_strides=8,8,8,1");
  const Arguments a = arguments(p);
  ASSERT_TRUE(plan(p).run(a).ok());
  const StandInLaunch& latest = *stand_in().latest();
  constexpr std::int64_t kTiles = 3LL << 30;
  EXPECT_EQ(latest.params.tiles, kTiles);
  EXPECT_GT(latest.grid_y, 1U);
  EXPECT_GE(static_cast<std::int64_t>(latest.grid_x) * latest.grid_y, kTiles);
  EXPECT_LT((static_cast<std::int64_t>(latest.grid_x) - 1) * latest.grid_y, kTiles);
}

TEST_F(Launching, LaunchesNothingForEmptyResults) {
  for (const char* words :
       {"b=0 sq=2 d=8", "sq=0 sk=2 d=8", "sq=2 d=8 dv=0", "packed=q total_q=0 b=3 sq=0 d=8"}) {
    const Problem p = problem(words);
    const Arguments a = arguments(p);
    ASSERT_TRUE(plan(p).run(a).ok()) << words;
    EXPECT_EQ(stand_in().launches(), 0) << words;
  }
}

TEST_F(Launching, LaunchesWhatMustBeWrittenWithoutQueriesOrKeys) {
  for (const char* words :
       {"sq=2 sk=0 d=8", "sq=2 d=8 dv=0 lse", "packed=q total_q=5 b=3 sq=0 sk=4 d=8",
        "packed=q total_q=5 b=0 sq=3 sk=4 d=8 lse",
        "packed=q total_q=0 b=3 sq=7 d=8 lse=padded32"}) {
    const Problem p = problem(words);
    const Arguments a = arguments(p);
    ASSERT_TRUE(plan(p).run(a).ok()) << words;
    EXPECT_EQ(stand_in().launches(), 1) << words;
    EXPECT_GE(stand_in().latest()->params.b, 1) << words;
    EXPECT_GE(stand_in().latest()->params.query_blocks, 1) << words;
  }
}

TEST_F(Launching, WarmRunsAllocateNothing) {
  for (const char* words :
       {"dtype=bf16 b=2 hq=8 hkv=2 sq=100 sk=300 d=128 mask=causal-top-left lse",
        "dtype=f16 sq=100 d=64 bias=f16 dropout=0.5",
        "dtype=f32 b=3 packed=qk sq=50 d=64 key_lengths alibi=head sink"}) {
    const Problem p = problem(words);
    const Arguments a = arguments(p);
    const Plan made = plan(p);
    ASSERT_TRUE(made.run(a).ok()) << words;
    stand_in().quiet(true);
    const auto before = allocations();
    const Status status = made.run(a);
    const auto after = allocations();
    stand_in().quiet(false);
    EXPECT_TRUE(status.ok()) << words;
    EXPECT_EQ(after, before) << words;
  }
}

TEST_F(Launching, HandsOverTheWorkspaceOrHasOneFromTheStream) {
  const Problem p = problem("dtype=f32 b=2 hq=3 hkv=3 sq=200 sk=100 d=300 dv=500");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_GT(made.workspace_bytes(), 0U);
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_NE(stand_in().latest()->params.accumulator, nullptr);
  EXPECT_EQ(stand_in().count("cuMemAllocAsync"), 1);
  EXPECT_EQ(stand_in().count("cuMemFreeAsync"), 1);

  const auto workspace = cuda::DeviceBuffer::allocate(0, made.workspace_bytes());
  ASSERT_TRUE(workspace.ok());
  forget();
  ASSERT_TRUE(made.run(a, {workspace->data(), workspace->size()}).ok());
  EXPECT_EQ(stand_in().count("cuMemAllocAsync"), 0);
  const auto address = reinterpret_cast<std::uintptr_t>(stand_in().latest()->params.accumulator);
  EXPECT_EQ(address % 256, 0U);
  const auto begin = reinterpret_cast<std::uintptr_t>(workspace->data());
  const kernel::ForwardParams& params = stand_in().latest()->params;
  const std::string id(made.kernel());
  const auto queries = static_cast<std::uint64_t>(std::stoi(id.substr(id.rfind('q') + 1)));
  EXPECT_GE(address, begin);
  EXPECT_LE(address + static_cast<std::uint64_t>(params.tiles) * queries * 500 * 4,
            begin + workspace->size());
}

TEST_F(Launching, ClustersAndDependentLaunchesAreAttributes) {
  const cuda::Driver& driver = **cuda::driver();
  stand_in().set_current(stand_in().create_context(0));
  std::vector<std::byte> bytes(64);
  const cuda::KernelEntry entry{"attune_kernel", 0};
  const auto functions = cuda::load_kernels(driver, 1u << 20, {"test", bytes, {&entry, 1}});
  ASSERT_TRUE(functions.ok()) << functions.status().message();
  cuda::Launch how;
  how.grid_x = 8;
  how.threads = 128;
  how.cluster = 2;
  how.programmatic = true;
  const kernel::ForwardParams params{};
  ASSERT_TRUE(cuda::launch(driver, functions->front(), how, &params, "test").ok());
  EXPECT_EQ(stand_in().latest()->cluster, 2U);
  EXPECT_TRUE(stand_in().latest()->programmatic);
}

TEST_F(Launching, AttentionFindsItsPlanAndTheAlignmentOfItsTensors) {
  const Problem p = problem("dtype=f16 b=2 hq=4 hkv=2 sq=100 sk=200 d=64 lse");
  const Arguments a = arguments(p);
  AttentionOptions options;
  options.device = Device::cuda;
  options.lse = a.lse;
  ASSERT_TRUE(attention(a.q, a.k, a.v, a.o, options).ok());
  EXPECT_EQ(stand_in().launches(), 1);
  const auto function = std::string(stand_in().latest()->function);
  forget();
  // 2 bytes on: only a row that loads one element at a time can serve.
  TensorView q = a.q;
  q.data = static_cast<std::byte*>(q.data) + 2;
  const Status status = attention(q, a.k, a.v, a.o, options);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 1) << "another kernel";
}

}  // namespace
}  // namespace attune::testing
