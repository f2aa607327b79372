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
  const Problem p = problem("dtype=bf16 b=20 hq=4 hkv=2 sq=300 sk=500 d=120 dv=80");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_TRUE(made.kernel().starts_with("fwd.hopper.sm90a.bf16.d128.nolse.")) << made.kernel();
  ASSERT_TRUE(made.run(a).ok());
  ASSERT_EQ(stand_in().tensor_maps(), 3);
  const Described q = described(0), k = described(1), v = described(2);
  EXPECT_EQ(q.type, cuda::kTensorMapBf16);
  EXPECT_EQ(q.sizes, (Numbers{120, 4, 300, 20}));
  EXPECT_EQ(q.strides, (Numbers{240, 4 * 240, 300 * 4 * 240}));
  EXPECT_EQ(q.box, (Numbers{64, 1, 64, 1}));
  EXPECT_EQ(k.sizes, (Numbers{120, 2, 500, 20}));
  EXPECT_EQ(k.strides, (Numbers{240, 2 * 240, 500 * 2 * 240}));
  EXPECT_EQ(v.sizes, (Numbers{80, 2, 500, 20}));
  EXPECT_EQ(v.strides, (Numbers{160, 2 * 160, 500 * 2 * 160}));
  EXPECT_EQ(k.box, (Numbers{64, 1, 128, 1}));
  EXPECT_EQ(k.box, v.box);
  EXPECT_EQ(stand_in().tensor_map(0)->data, a.q.data);
  EXPECT_EQ(stand_in().tensor_map(2)->data, a.v.data);
}

// A number is a byte to the engine; a panel has twice as many as of 16 bits.
TEST_F(Launching, DescribesEighths) {
  const Problem p = problem("dtype=f8e4m3 b=20 hq=4 hkv=2 sq=300 sk=500 d=112 dv=80 descale");
  Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_TRUE(made.kernel().starts_with("fwd.hopper.sm90a.f8e4m3.d128.plain.")) << made.kernel();
  ASSERT_TRUE(made.run(a).ok());
  ASSERT_EQ(stand_in().tensor_maps(), 3);
  const Described q = described(0), v = described(2);
  EXPECT_EQ(q.type, cuda::kTensorMapU8);
  EXPECT_EQ(q.sizes, (Numbers{112, 4, 300, 20}));
  EXPECT_EQ(q.strides, (Numbers{112, 4 * 112, 300 * 4 * 112}));
  EXPECT_EQ(q.box, (Numbers{128, 1, 64, 1}));
  EXPECT_EQ(v.strides, (Numbers{80, 2 * 80, 500 * 2 * 80}));
  EXPECT_EQ(v.box[0], 128U);
}

// A box has all heads of a group; the tile's blocks are a cluster, in a graph too.
TEST_F(Launching, SplitsATileAmongTheBlocksOfACluster) {
  const Problem p =
      problem("dtype=bf16 b=3 hq=16 hkv=2 sq=2 sk=5000 d=128 mask=causal-bottom-right");
  Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_EQ(made.kernel(), "fwd.hopper.sm90a.bf16.d128.split.q64k128");
  EXPECT_NE(made.explain().find("a tile's keys among 8 blocks, its rows among 8 heads"),
            std::string::npos)
      << made.explain();
  a.stream = stand_in().create_stream(stand_in().create_context(0));
  for (const bool captured : {false, true}) {
    forget();
    if (captured) stand_in().begin_capture(a.stream);
    ASSERT_TRUE(made.run(a).ok());
    if (captured) stand_in().end_capture(a.stream);
    const StandInLaunch& latest = *stand_in().latest();
    EXPECT_EQ(latest.cluster, 8U);
    EXPECT_EQ(latest.grid_x, 3U * 2U * 8U);
    EXPECT_EQ(latest.grid_y, 1U);
    EXPECT_EQ(latest.threads, 256U);
    EXPECT_EQ(latest.params.pack_shift, 3);
    EXPECT_EQ(latest.params.query_blocks, 1);
  }
  EXPECT_EQ(described(0).box, (Numbers{64, 8, 8, 1}));
  EXPECT_EQ(described(0).sizes, (Numbers{128, 16, 2, 3}));
  EXPECT_EQ(described(1).box, (Numbers{64, 1, 128, 1}));
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
