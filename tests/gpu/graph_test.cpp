// Streams and CUDA graphs: a captured run is replayed, on new numbers and with new dropout masks.
#include <gtest/gtest.h>

#include <array>
#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "launch/device.h"
#include "launch/device_tensor.h"
#include "launch/memory.h"
#include "tests/gpu/backward_case.h"
#include "tests/gpu/with_stream.h"
#include "tests/support/judge.h"
#include "tests/support/on_gpu.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

class Graphs : public WithStream {
 protected:
  // Captures plan.run(arguments), with a workspace if there is one, on a stream of its own.
  cuda::GraphExec capture(const Plan& plan, Arguments arguments,
                          std::optional<std::span<std::byte>> workspace = {}) {
    arguments.stream = stream_;
    cuda::Graph graph = nullptr;
    cuda::GraphExec exec = nullptr;
    EXPECT_EQ(driver_->capture_begin(stream_, 0), cuda::kSuccess);
    const Status status = workspace ? plan.run(arguments, *workspace) : plan.run(arguments);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(driver_->capture_end(stream_, &graph), cuda::kSuccess);
    EXPECT_EQ(driver_->graph_instantiate(&exec, graph, 0), cuda::kSuccess);
    (void)driver_->graph_destroy(graph);
    return exec;
  }

  void replay(cuda::GraphExec exec) {
    ASSERT_EQ(driver_->graph_launch(exec, stream_), cuda::kSuccess);
    ASSERT_EQ(driver_->stream_synchronize(stream_), cuda::kSuccess);
  }
};

Problem small(const std::string& words) {
  const Expected<Problem> p = parse("forward b=2 hq=3 hkv=3 sq=45 sk=64 d=64 " + words);
  EXPECT_TRUE(p.ok()) << p.status().message();
  return *p;
}

TEST_F(Graphs, AReplayReadsTheDropoutStateOfItsTime) {
  for (const char* dtype : {"f32", "f16", "bf16"}) {
    Problem p = small(std::string("dropout=0.5 dtype=") + dtype);
    p.device = Device::cuda;
    Tensors tensors(p, Distribution::normal, 3);
    tensors.edit("v", [](const Index& i) { return i[1] == i[3] ? 1.0 : 0.0; });
    const auto copy = cuda::DeviceArguments::copy_of(p, tensors.arguments(), gpu());
    ASSERT_TRUE(copy.ok()) << copy.status().message();
    const auto state = cuda::DeviceBuffer::allocate(gpu(), 16);
    ASSERT_TRUE(state.ok());
    Arguments a = copy->arguments();
    a.dropout_state = TensorView::contiguous(state->data(), DType::i64, {2});
    a.dropout_seed = 999;  // not read
    const Expected<Plan> plan = make_plan(p);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    ASSERT_TRUE(plan->prepare().ok());
    cuda::GraphExec exec = capture(*plan, a);
    for (const auto& [seed, offset] :
         {std::pair<std::int64_t, std::int64_t>{5, 0}, {5, 4}, {77, 3}, {1LL << 40, 1LL << 34}}) {
      const std::array<std::int64_t, 2> numbers{seed, offset};
      ASSERT_TRUE(state->write(numbers.data(), 16).ok());
      replay(exec);
      ASSERT_TRUE(copy->fetch_outputs().ok());
      const TensorMemory& o = *tensors.outputs().front().memory;
      int wrong = 0;
      for_each_index(o.view(), [&](const Index& i) {
        const std::int64_t index = ((i[0] * p.hq + i[2]) * p.sq + i[1]) * p.sk + i[3];
        const bool keep = oracle::dropout_keep(static_cast<std::uint64_t>(numbers[0]),
                                               static_cast<std::uint64_t>(numbers[1]),
                                               static_cast<std::uint64_t>(index), p.dropout);
        wrong += (o.get(i) != 0) != keep ? 1 : 0;
      });
      EXPECT_EQ(wrong, 0) << dtype << " seed " << seed << " offset " << offset;
    }
    (void)driver_->graph_exec_destroy(exec);
  }
}

// The first run of a kernel, while a stream is being captured: it is loaded all the same.
TEST_F(Graphs, CapturesWithoutPreparing) {
  for (const char* words :
       {"dtype=bf16 d=64 lse mask=causal-top-left softcap=7 sink", "dtype=f32 d=300 softcap=7"}) {
    const Expected<Problem> parsed =
        parse(std::string("forward b=2 hq=3 hkv=3 sq=45 sk=64 ") + words);
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    Problem p = *parsed;
    p.device = Device::cuda;
    Tensors tensors(p, Distribution::normal, 4);
    Problem on_host = p;
    on_host.device = Device::cpu;
    const Expected<Reference> reference = make_reference(on_host, tensors);
    ASSERT_TRUE(reference.ok());
    tensors.poison_outputs();
    const auto copy = cuda::DeviceArguments::copy_of(p, tensors.arguments(), gpu());
    ASSERT_TRUE(copy.ok());
    const Expected<Plan> plan = make_plan(p);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    cuda::GraphExec exec = capture(*plan, copy->arguments());
    replay(exec);
    replay(exec);
    ASSERT_TRUE(copy->fetch_outputs().ok());
    for (const Tensors::Output& output : tensors.outputs()) {
      EXPECT_EQ(compare_tensor(output.name, output.memory->view(), output.result, *reference), "")
          << print(p);
    }
    (void)driver_->graph_exec_destroy(exec);
  }
}

// Backward: each replay reads the inputs, o, LSE and dropout state of its time. With and without a
// workspace of the caller's, and the first run of its kernels while the stream is being captured.
TEST_F(Graphs, AReplayOfBackwardGivesWhatARunGives) {
  for (const char* words :
       {"dtype=bf16 d=64 mask=causal-bottom-right", "dtype=f32 d=64 dropout=0.2",
        "dtype=f16 d=128 bias=f16:1hqk bias_grad sink sink_grad", "dtype=bf16 d=300"}) {
    const Expected<Problem> p =
        parse(std::string("backward lse deterministic device=cuda b=2 hq=4 hkv=2 sq=200 sk=300 ") +
              words);
    ASSERT_TRUE(p.ok()) << p.status().message();
    Expected<BackwardCase> tensors = BackwardCase::make(*p);
    ASSERT_TRUE(tensors.ok()) << tensors.status().message();
    const Expected<Plan> plan = make_plan(*p);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const auto workspace = cuda::DeviceBuffer::allocate(gpu(), plan->workspace_bytes());
    ASSERT_TRUE(workspace.ok()) << workspace.status().message();
    const std::span<std::byte> own(workspace->data(), workspace->size());
    const std::array graphs = {capture(*plan, tensors->arguments()),
                               capture(*plan, tensors->arguments(), own)};
    std::vector<std::byte> last;
    for (const std::uint64_t seed : {1, 2, 1}) {
      Status status = tensors->draw(seed);
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_TRUE(tensors->poison().ok());
      status = plan->run(tensors->arguments());
      ASSERT_TRUE(status.ok()) << status.message();
      const Expected<std::vector<std::byte>> run = tensors->results();
      ASSERT_TRUE(run.ok()) << run.status().message();
      EXPECT_TRUE(*run != last) << print(*p) << ": other inputs, the same gradients";
      last = *run;
      for (cuda::GraphExec graph : graphs) {
        ASSERT_TRUE(tensors->poison().ok());
        // The graph's stream does not wait for the default one.
        ASSERT_TRUE(cuda::synchronize(gpu()).ok());
        replay(graph);
        const Expected<std::vector<std::byte>> replayed = tensors->results();
        ASSERT_TRUE(replayed.ok()) << replayed.status().message();
        EXPECT_EQ(tensors->differences(*run, *replayed), "")
            << print(*p) << (graph == graphs[1] ? " with a workspace" : "") << ", seed " << seed;
      }
    }
    for (cuda::GraphExec graph : graphs) (void)driver_->graph_exec_destroy(graph);
  }
}

// Without prepare(), from threads that have no context at all.
TEST_F(Graphs, ThreadsWithoutAContextRunOnePlan) {
  Problem p = small("dtype=bf16 lse");
  p.device = Device::cuda;
  Tensors tensors(p, Distribution::normal, 6);
  Problem on_host = p;
  on_host.device = Device::cpu;
  const Expected<Reference> reference = make_reference(on_host, tensors);
  ASSERT_TRUE(reference.ok());
  const Expected<Plan> plan = make_plan(p);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const auto copy = cuda::DeviceArguments::copy_of(p, tensors.arguments(), gpu());
  ASSERT_TRUE(copy.ok());
  std::vector<std::thread> threads;
  std::array<Status, 6> statuses;
  for (Status& status : statuses) {
    threads.emplace_back([&] {
      for (int n = 0; n < 20 && status.ok(); ++n) status = plan->run(copy->arguments());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : statuses) EXPECT_TRUE(status.ok()) << status.message();
  ASSERT_TRUE(copy->fetch_outputs().ok());
  for (const Tensors::Output& output : tensors.outputs()) {
    EXPECT_EQ(compare_tensor(output.name, output.memory->view(), output.result, *reference), "");
  }
}

TEST_F(Graphs, HostPointersAreRefusedByName) {
  if (cuda::reads_host_memory(gpu())) GTEST_SKIP() << "this GPU reads host memory";
  Problem p = small("dtype=bf16 align=2");
  p.device = Device::cuda;
  Tensors tensors(p, Distribution::normal, 6);
  const Expected<Plan> plan = make_plan(p);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const Status status = plan->run(tensors.arguments());
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_NE(status.message().find("q at 0x"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace attune::testing
