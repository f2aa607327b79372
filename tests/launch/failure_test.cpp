// Every call of the driver can fail; the caller learns which kernel, which call, and what the driver
// said, and the next run is as good as ever.
#include <attune/attune.h>
#include <gtest/gtest.h>

#include <attune/attention.hpp>
#include <attune/plan.hpp>
#include <string>
#include <vector>

#include "launch/cuda_types.h"
#include "tests/launch/fixture.h"

namespace attune::testing {
namespace {

void expect_says(const Status& status, Code code, const std::vector<std::string>& parts) {
  EXPECT_EQ(status.code(), code) << status.message();
  for (const std::string& part : parts) {
    EXPECT_NE(status.message().find(part), std::string::npos)
        << "\"" << part << "\" is not in: " << status.message();
  }
}

class Failures : public Launching {};

TEST_F(Failures, NameTheKernelTheCallAndTheDriversWords) {
  // An unbounded head dim, so that a workspace is allocated as well.
  const Problem p = problem("dtype=bf16 b=2 hq=4 hkv=4 sq=100 sk=100 d=512");
  const Arguments a = arguments(p);
  struct Case {
    const char* call;
    std::vector<std::string> says;
  };
  const Plan warm = plan(p);
  const std::string id(warm.kernel());
  for (const Case& c : {
           Case{"cuCtxGetCurrent", {"cuCtxGetCurrent"}},
           Case{"cuCtxPushCurrent", {"cuCtxPushCurrent"}},
           Case{"cuModuleLoadData", {id, "loading its cubin of"}},
           Case{"cuModuleGetFunction", {id, "attune_kernel"}},
           Case{"cuFuncSetAttribute", {id, "bytes of shared memory a block"}},
           Case{"cuMemAllocAsync", {id, "a workspace of", "bytes"}},
           Case{"cuLaunchKernelEx", {id, "launching ", " x 1 x 1 blocks", "threads"}},
           Case{"cuMemFreeAsync", {id, "freeing the workspace"}},
       }) {
    const Plan made = plan(p);
    // A context that has nothing of it yet, unless the context is what fails.
    const bool of_context = std::string(c.call).find("cuCtx") == 0;
    if (!of_context) stand_in().set_current(stand_in().create_context(0));
    stand_in().fail(c.call, 719, 0);
    Status status = made.run(a);
    if (std::string(c.call) == "cuFuncSetAttribute" && status.ok()) continue;  // a small tile
    std::vector<std::string> says = c.says;
    says.insert(says.end(), {"CUDA_ERROR_UNKNOWN", "the stand-in's own words", "719"});
    expect_says(status, Code::device_error, says);
    if (std::string(c.call) == "cuModuleGetFunction") {
      EXPECT_EQ(stand_in().count("cuModuleUnload"), 1) << "what was loaded in vain is given back";
    }
    const std::size_t before = stand_in().allocated();
    status = made.run(a);
    EXPECT_TRUE(status.ok()) << c.call << ": " << status.message();
    EXPECT_EQ(stand_in().allocated(), before) << c.call;
    if (of_context) {
      EXPECT_EQ(stand_in().current(), nullptr) << c.call;
    }
    stand_in().set_current(nullptr);
  }
  // The workspace whose release "failed" above is still there.
  EXPECT_GT(stand_in().allocated(), 0U);
  stand_in().forget_memory();
}

TEST_F(Failures, OutOfMemoryIsACodeOfItsOwn) {
  const Problem p = problem("dtype=bf16 b=2 hq=4 hkv=4 sq=100 sk=100 d=512");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  stand_in().fail("cuMemAllocAsync", cuda::kErrorOutOfMemory, 0);
  expect_says(made.run(a), Code::out_of_memory, {"CUDA_ERROR_OUT_OF_MEMORY", "a workspace of"});
  EXPECT_EQ(stand_in().launches(), 0);
  stand_in().fail("cuLaunchKernelEx", cuda::kErrorInvalidHandle, 0);
  expect_says(made.run(a), Code::invalid_argument, {"CUDA_ERROR_INVALID_HANDLE"});
}

TEST_F(Failures, HostPointersAreRefusedByName) {
  const Problem p = problem("dtype=f32 sq=10 d=16 lse");
  for (TensorView Arguments::*tensor :
       {&Arguments::q, &Arguments::k, &Arguments::v, &Arguments::o, &Arguments::lse}) {
    Arguments a = arguments(p);
    alignas(16) static float memory[160];
    (a.*tensor).data = memory;
    const Plan made = plan(p);
    const Status status = made.run(a);
    const char* name = tensor == &Arguments::q   ? "q"
                       : tensor == &Arguments::k ? "k"
                       : tensor == &Arguments::v ? "v"
                       : tensor == &Arguments::o ? "o"
                                                 : "lse";
    expect_says(status, Code::invalid_argument,
                {std::string(name) + " at 0x", "GPU 0 can't read", "use device=cpu"});
    EXPECT_EQ(stand_in().launches(), 0);
  }
}

TEST_F(Failures, HostPointersAreFineWhereTheDeviceReadsThem) {
  const StandInDevice coherent{.reads_host_memory = true};
  const Problem p = problem("dtype=f32 sq=10 d=16");
  Arguments a = arguments(p);
  stand_in().reset(&coherent, 1);
  Expected<Plan> made = make_plan(p);
  ASSERT_TRUE(made.ok());
  alignas(16) static float memory[160];
  a.q.data = memory;
  EXPECT_TRUE(made->run(a).ok());
}

TEST_F(Failures, WorkspacesThatAreTooSmallAreRefused) {
  const Problem p = problem("dtype=bf16 sq=100 d=512");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  std::byte one{};
  expect_says(made.run(a, {&one, 1}), Code::invalid_argument,
              {"the workspace has 1 bytes", "the plan needs"});
  EXPECT_EQ(stand_in().launches(), 0);
}

TEST_F(Failures, MisplacedPointersNameTheFix) {
  const Problem p = problem("dtype=f16 sq=10 d=16");
  Arguments a = arguments(p);
  a.k.data = static_cast<std::byte*>(a.k.data) + 8;
  expect_says(plan(p).run(a), Code::invalid_argument,
              {"k starts at address", "multiple of the 16 bytes", "say align=8"});
}

TEST_F(Failures, BackwardOverPagesNamesTheWaysAround) {
  const Problem p = problem("backward lse sq=10 d=16 page_size=16 pages=4");
  expect_says(make_plan(p).status(), Code::unsupported,
              {"paged keys have no gradient on a GPU", "use device=cpu", "gather the pages"});
}

// Problems state no strides of gradients, so a run is the first to see them.
TEST_F(Failures, GradientsThatAPlansKernelCannotTakeNameTheFix) {
  const Problem p = problem("backward lse dtype=bf16 hq=2 hkv=2 sq=10 sk=10 d=16");
  const Plan made = plan(p);
  for (TensorView Arguments::*tensor :
       {&Arguments::grad_o, &Arguments::grad_q, &Arguments::grad_k, &Arguments::grad_v}) {
    Arguments a = arguments(p);
    (a.*tensor).strides = {0, 36, 18, 1};
    expect_says(made.run(a), Code::invalid_argument,
                {std::string(made.kernel()), "grad_", "strides (0, 36, 18, 1)", "multiples of 8",
                 "align=2"});
    EXPECT_EQ(stand_in().launches(), 0);
    Problem any = p;
    any.alignment = 2;
    EXPECT_TRUE(plan(any).run(a).ok());
  }
  Arguments a = arguments(p);
  a.grad_o.data = static_cast<std::byte*>(a.grad_o.data) + 8;
  expect_says(made.run(a), Code::invalid_argument, {"grad_o starts at address", "say align=8"});
}

TEST_F(Failures, ArchIsForExplainAlone) {
  const Problem p = problem("dtype=f16 sq=10 d=16");
  PlanOptions options;
  options.arch = "sm_86";
  expect_says(make_plan(p, options).status(), Code::invalid_argument,
              {"arch = sm_86", "explain()"});
  const Expected<std::string> words = explain(p, options);
  ASSERT_TRUE(words.ok());
  EXPECT_NE(words->find("sm_86"), std::string::npos);
  options.arch = "sm_1";
  expect_says(explain(p, options).status(), Code::invalid_argument, {"sm_1", "known: sm_75"});
}

TEST_F(Failures, TheCAbiReportsThem) {
  attune_plan* made = nullptr;
  ASSERT_EQ(attune_plan_create("forward dtype=f16 sq=64 d=64 device=cuda", nullptr, &made),
            ATTUNE_OK)
      << attune_last_error();
  EXPECT_EQ(attune_plan_device_index(made), 0);
  EXPECT_EQ(attune_plan_device_index(nullptr), -1);
  stand_in().set_current(stand_in().create_context(0));
  stand_in().fail("cuModuleLoadData", 200, 0);
  EXPECT_EQ(attune_plan_prepare(made), ATTUNE_DEVICE_ERROR);
  EXPECT_NE(std::string(attune_last_error()).find("CUDA_ERROR_INVALID_IMAGE"), std::string::npos)
      << attune_last_error();
  EXPECT_EQ(attune_plan_prepare(made), ATTUNE_OK) << attune_last_error();
  attune_plan_destroy(made);

  attune_plan_options options = {};
  options.struct_size = sizeof(options);
  options.has_device_index = 1;
  options.device_index = 1;
  ASSERT_EQ(attune_plan_create("forward dtype=f16 sq=64 d=64 device=cuda", &options, &made),
            ATTUNE_OK)
      << attune_last_error();
  EXPECT_EQ(attune_plan_device_index(made), 1);
  attune_plan_destroy(made);
}

}  // namespace
}  // namespace attune::testing
