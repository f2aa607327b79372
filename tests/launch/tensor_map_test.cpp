// What the copy engine of sm_90 is told about tensors.
#include <gtest/gtest.h>

#include <attune/plan.hpp>
#include <string>
#include <vector>

#include "launch/cuda_types.h"
#include "tests/launch/fixture.h"

namespace attune::testing {
namespace {

using Numbers = std::vector<unsigned long long>;

struct Described {
  int type = 0;
  Numbers sizes, strides, box;
};

Described described(int n) {
  const StandInTensorMap& map = *stand_in().tensor_map(n);
  return {
      map.type, {map.sizes, map.sizes + 4}, {map.strides, map.strides + 3}, {map.box, map.box + 4}};
}

TEST_F(Launching, DescribesQueriesKeysAndValues) {
  const Problem p = problem("dtype=bf16 b=2 hq=4 hkv=2 sq=300 sk=500 d=120 dv=80");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_TRUE(made.kernel().starts_with("fwd.hopper.sm90a.bf16.d128.plain.")) << made.kernel();
  ASSERT_TRUE(made.run(a).ok());
  ASSERT_EQ(stand_in().tensor_maps(), 3);
  const Described q = described(0), k = described(1), v = described(2);
  EXPECT_EQ(q.type, cuda::kTensorMapBf16);
  EXPECT_EQ(q.sizes, (Numbers{120, 4, 300, 2}));
  EXPECT_EQ(q.strides, (Numbers{240, 4 * 240, 300 * 4 * 240}));
  EXPECT_EQ(q.box, (Numbers{64, 1, 128, 1}));
  EXPECT_EQ(k.sizes, (Numbers{120, 2, 500, 2}));
  EXPECT_EQ(k.strides, (Numbers{240, 2 * 240, 500 * 2 * 240}));
  EXPECT_EQ(v.sizes, (Numbers{80, 2, 500, 2}));
  EXPECT_EQ(v.strides, (Numbers{160, 2 * 160, 500 * 2 * 160}));
  EXPECT_EQ(k.box, v.box);
  EXPECT_EQ(stand_in().tensor_map(0)->data, a.q.data);
  EXPECT_EQ(stand_in().tensor_map(2)->data, a.v.data);
}

TEST_F(Launching, DescribesPackedTokensAsOneSequence) {
  const Problem p = problem("dtype=f16 b=3 sq=40 sk=50 packed=qk total_q=90 total_k=120 d=64");
  const Plan made = plan(p);
  ASSERT_TRUE(made.kernel().starts_with("fwd.hopper.")) << made.kernel();
  ASSERT_TRUE(made.run(arguments(p)).ok());
  EXPECT_EQ(described(0).type, cuda::kTensorMapF16);
  EXPECT_EQ(described(0).sizes, (Numbers{64, 1, 90, 1}));
  EXPECT_EQ(described(1).sizes, (Numbers{64, 1, 120, 1}));
}

TEST_F(Launching, SaysWhatTheDriverWouldNotDescribe) {
  const Problem p = problem("dtype=bf16 sq=64 sk=64 d=64");
  const Plan made = plan(p);
  ASSERT_TRUE(made.kernel().starts_with("fwd.hopper.")) << made.kernel();
  const Arguments a = arguments(p);
  stand_in().fail("cuTensorMapEncodeTiled", cuda::kErrorInvalidValue, 1);
  const Status status = made.run(a);
  EXPECT_EQ(status.code(), Code::device_error);
  for (const char* part : {"fwd.hopper.", "describing k at ", "64 x 1 x 64 x 1", "error 1"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
  EXPECT_EQ(stand_in().launches(), 0);
}

}  // namespace
}  // namespace attune::testing
