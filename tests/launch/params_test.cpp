// What planning makes of a Problem and its tensors.
#include <gtest/gtest.h>

#include <attune/attention.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "host/device_facts.h"
#include "plan/forward_portable.h"
#include "problem/dropout.h"
#include "problem/lengths.h"
#include "tests/launch/fixture.h"
#include "tests/support/random.h"

namespace attune::testing {
namespace {

class Params : public Launching {
 protected:
  // The parameters that the kernel would get.
  kernel::ForwardParams run(const Problem& p, const Arguments& a) {
    const Status status = plan(p).run(a);
    EXPECT_TRUE(status.ok()) << status.message();
    return stand_in().latest()->params;
  }
};

TEST_F(Params, SizesScaleAndStrides) {
  const Problem p = problem(
      "dtype=bf16 b=2 hq=6 hkv=2 sq=300 sk=500 d=64 dv=32 scale=0.5 softcap=3 "
      "q_strides=200000,512,64,1");
  const Arguments a = arguments(p);
  const kernel::ForwardParams got = run(p, a);
  EXPECT_EQ(got.b, 2);
  EXPECT_EQ(got.hq, 6);
  EXPECT_EQ(got.hkv, 2);
  EXPECT_EQ(got.group, 3);
  EXPECT_EQ(got.sq, 300);
  EXPECT_EQ(got.sk, 500);
  EXPECT_EQ(got.d, 64);
  EXPECT_EQ(got.dv, 32);
  EXPECT_EQ(got.scale, 0.5F);
  EXPECT_EQ(got.softcap, 3.0F);
  EXPECT_EQ(got.q.data, a.q.data);
  EXPECT_EQ(got.q.b_stride, 200000);
  EXPECT_EQ(got.q.s_stride, 512);
  EXPECT_EQ(got.o.b_stride, 300 * 6 * 32);
  EXPECT_EQ(got.o.d_stride, 1);
  EXPECT_EQ(got.tiles, static_cast<std::int64_t>(got.query_blocks) * 6 * 2);
  EXPECT_EQ(got.lse.data, nullptr);
  EXPECT_EQ(got.alibi, nullptr);
  EXPECT_EQ(got.sink, nullptr);
  EXPECT_EQ(got.page_table.data, nullptr);
}

TEST_F(Params, BiasSlopesSinkAndLse) {
  const Problem p = problem(
      "dtype=f16 b=2 hq=4 hkv=4 sq=30 sk=50 d=64 bias=bf16:1h1k alibi=batch-head sink "
      "lse=padded32");
  const Arguments a = arguments(p);
  const kernel::ForwardParams got = run(p, a);
  EXPECT_EQ(got.bias.kind, kernel::BiasKind::additive);
  EXPECT_EQ(got.bias.element, static_cast<int>(kernel::Element::bf16));
  EXPECT_EQ(got.bias.b_stride, 0);
  EXPECT_EQ(got.bias.h_stride, 50);
  EXPECT_EQ(got.bias.q_stride, 0);
  EXPECT_EQ(got.bias.k_stride, 1);
  EXPECT_EQ(got.alibi_b_stride, 4);
  EXPECT_EQ(got.alibi_h_stride, 1);
  EXPECT_EQ(got.sink, a.sink.data);
  EXPECT_EQ(got.lse.padded, 32);
  EXPECT_EQ(got.lse.packed, 0);
  EXPECT_EQ(got.lse.b_stride, 4 * 32);
  EXPECT_EQ(got.lse.h_stride, 32);
  EXPECT_EQ(got.lse.s_stride, 1);
}

TEST_F(Params, PackedPagedAndLengths) {
  const Problem p = problem(
      "dtype=f16 b=3 hq=2 hkv=2 sq=40 sk=70 d=32 key_lengths packed=q total_q=100 page_size=16 "
      "pages=20 lse");
  const Arguments a = arguments(p);
  const kernel::ForwardParams got = run(p, a);
  EXPECT_EQ(got.q.b_stride, 0);
  EXPECT_EQ(got.o.b_stride, 0);
  EXPECT_EQ(got.k.b_stride, 16 * 2 * 32) << "the stride of a page";
  EXPECT_EQ(got.total_q, 100);
  EXPECT_EQ(got.page_size, 16);
  EXPECT_EQ(got.pages, 20);
  EXPECT_EQ(got.cu_seqlens_q.data, a.cu_seqlens_q.data);
  EXPECT_EQ(got.cu_seqlens_k.data, nullptr);
  EXPECT_EQ(got.key_lengths.data, a.key_lengths.data);
  EXPECT_EQ(got.page_table.stride, 5);
  EXPECT_EQ(got.page_table.inner_stride, 1);
  EXPECT_EQ(got.lse.packed, 1);
  EXPECT_EQ(got.lse.h_stride, 100);
}

// No sequence, but tokens that must become 0: the kernel sees one sequence, which is empty.
TEST_F(Params, TokensOfNoSequenceAtAll) {
  const Problem p = problem(
      "dtype=f16 b=0 hq=2 hkv=2 sq=40 sk=70 d=32 packed=qk total_q=9 "
      "total_k=0 key_lengths lse");
  const Arguments a = arguments(p);
  const kernel::ForwardParams got = run(p, a);
  EXPECT_EQ(got.b, 1);
  EXPECT_EQ(got.sq, 0);
  EXPECT_EQ(got.sk, 0);
  EXPECT_EQ(got.cu_seqlens_q.stride, 0);
  EXPECT_EQ(got.cu_seqlens_k.stride, 0);
  EXPECT_EQ(got.key_lengths.data, nullptr);
  EXPECT_EQ(got.tiles, 2);
}

TEST_F(Params, DropoutBySeedOrByState) {
  const Problem p = problem("dtype=f16 sq=40 d=64 dropout=0.25");
  Arguments a = arguments(p);
  a.dropout_seed = 7;
  a.dropout_offset = 9;
  kernel::ForwardParams got = run(p, a);
  EXPECT_EQ(got.dropout.seed, 7U);
  EXPECT_EQ(got.dropout.offset, 9U);
  EXPECT_EQ(got.dropout.state, nullptr);
  EXPECT_EQ(got.dropout.keep_from, dropout_threshold(0.25).keep_from);
  EXPECT_EQ(got.dropout.keep_scale, static_cast<float>(1 / 0.75));
  EXPECT_EQ(got.dropout.bytes, 0);
  const auto state = cuda::DeviceBuffer::allocate(0, 16);
  ASSERT_TRUE(state.ok());
  a.dropout_state = TensorView::contiguous(state->data(), DType::i64, {2});
  got = run(p, a);
  EXPECT_EQ(got.dropout.state, a.dropout_state.data);
}

TEST_F(Params, DropoutOfEitherStream) {
  const Problem p = problem("dtype=f16 sq=40 d=64 dropout=0.25 dropout_stream=fa2");
  const kernel::ForwardParams got = run(p, arguments(p));
  EXPECT_EQ(got.dropout.bytes, 1);
  EXPECT_EQ(got.dropout.keep_to, 191U);
}

// The two bounds against attended(), which walks every case of the contract.
TEST(Masks, BoundsAreTheContracts) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  Random random(11);
  const DeviceFacts device = *device_of("sm_90");
  for (int n = 0; n < 4000; ++n) {
    Problem p;
    p.device = Device::cuda;
    p.sq = random.integer(1, 40);
    p.sk = random.integer(0, 40);
    Mask& mask = p.mask;
    mask.causal = random.chance(0.5);
    mask.diagonal = random.chance(0.5) ? Diagonal::top_left : Diagonal::bottom_right;
    if (random.chance(0.6)) mask.offset = random.integer(-50, 50);
    if (random.chance(0.1)) {
      mask.offset = random.pick<std::int64_t>({-(1LL << 62), 1LL << 62, -(1LL << 33), 1LL << 33});
    }
    if (random.chance(0.5)) mask.left = random.integer(0, 50);
    if (random.chance(0.5)) mask.right = random.integer(0, 50);
    // Sides near a far offset, where a careless clamp would shift the window.
    if (random.chance(0.1))
      mask.left = std::max<std::int64_t>(0, mask.offset + random.integer(0, 9));
    if (random.chance(0.1)) {
      mask.right = std::max<std::int64_t>(0, -mask.offset + random.integer(0, 9));
    }
    if (random.chance(0.05)) mask.left = kMax;
    if (random.chance(0.05)) mask.right = kMax;
    ASSERT_TRUE(validate(p).ok()) << print(p);
    KernelSpec spec;
    spec.family = Family::portable;
    spec.dtype = DType::f32;
    const auto plan = plan_forward_portable(p, spec, device);
    ASSERT_TRUE(plan.ok());
    const std::int64_t diagonal = plan->params.bottom_right != 0 ? p.sk - p.sq : 0;
    for (std::int64_t i = 0; i < p.sq; ++i) {
      const Interval want = attended(mask, i, p.sq, p.sk);
      const std::int64_t lo =
          std::clamp<std::int64_t>(i + diagonal + plan->params.mask_low, 0, p.sk);
      const std::int64_t hi =
          std::clamp<std::int64_t>(i + diagonal + plan->params.mask_high, 0, p.sk);
      if (want.lo >= want.hi) {
        ASSERT_GE(lo, hi) << print(p) << " i " << i;
      } else {
        ASSERT_EQ(lo, want.lo) << print(p) << " i " << i;
        ASSERT_EQ(hi, want.hi) << print(p) << " i " << i;
      }
    }
  }
}

TEST(Grids, CoverEveryTileOnce) {
  constexpr std::int64_t kMostX = 2147483647;
  for (const std::int64_t tiles : {std::int64_t{1}, std::int64_t{65536}, kMostX, kMostX + 1,
                                   2 * kMostX, 2 * kMostX + 1, kMostX * 65535}) {
    const Expected<Grid> grid = fold(tiles);
    ASSERT_TRUE(grid.ok()) << tiles;
    EXPECT_LE(grid->x, kMostX);
    EXPECT_LE(grid->y, 65535);
    EXPECT_GE(grid->x * grid->y, tiles);
    EXPECT_LT(grid->x * grid->y - tiles, grid->y);
  }
  const Expected<Grid> grid = fold(kMostX * 65535 + 1);
  ASSERT_FALSE(grid.ok());
  EXPECT_NE(grid.status().message().find("140735340806146 tiles"), std::string::npos)
      << grid.status().message();
}

}  // namespace
}  // namespace attune::testing
