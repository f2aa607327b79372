// Backward on a GPU as the driver sees it: which kernels are launched, on what, with what workspace.
#include <attune/kernel/backward_portable_layout.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/attention.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "plan/backward_portable.h"
#include "tests/launch/fixture.h"

namespace attune::testing {
namespace {

using Names = std::vector<std::string>;

class Backward : public Launching {
 protected:
  static Problem backward(const std::string& words) { return problem("backward lse " + words); }

  static Names launched() {
    Names names;
    for (int n = 0; n < std::min(stand_in().launches(), kStandInLaunches); ++n) {
      names.emplace_back(stand_in().launch(n)->function);
    }
    return names;
  }

  // The parameters that all kernels get.
  kernel::BackwardParams run(const Problem& p, const Arguments& a) {
    const Status status = plan(p).run(a);
    EXPECT_TRUE(status.ok()) << print(p) << "\n" << status.message();
    for (int n = 1; n < stand_in().launches(); ++n) {
      EXPECT_EQ(stand_in().launch(n)->backward.rows, stand_in().launch(0)->backward.rows);
    }
    return stand_in().latest()->backward;
  }

  static BackwardPlan planned(const Problem& p) {
    const DeviceFacts device = *device_of("sm_90");
    const auto spec = spec_from(plan(p).kernel());
    EXPECT_TRUE(spec);
    Expected<BackwardPlan> made = plan_backward_portable(p, *spec, device);
    EXPECT_TRUE(made.ok()) << made.status().message();
    return std::move(made).value();
  }
};

const Names kThree = {"attune_kernel_rows", "attune_kernel", "attune_kernel_finish"};
const Names kFour = {"attune_kernel_rows", "attune_kernel", "attune_kernel_bias",
                     "attune_kernel_finish"};

TEST_F(Backward, LaunchesRowsKeysBiasAndFinishInThisOrder) {
  const Problem p = backward("dtype=bf16 b=2 hq=4 hkv=2 sq=300 sk=500 d=128");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(launched(), kThree);
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 1) << "one cubin has them all";
  EXPECT_EQ(stand_in().count("cuModuleGetFunction"), 3);
  EXPECT_EQ(stand_in().launch(0)->shared_bytes, 0U);
  EXPECT_GT(stand_in().launch(1)->shared_bytes, 48U * 1024);
  EXPECT_EQ(stand_in().launch(2)->shared_bytes, 0U);

  const Problem biased =
      backward("dtype=bf16 b=2 hq=4 hkv=2 sq=300 sk=500 d=128 bias=f32:1hqk bias_grad");
  const Arguments with_bias = arguments(biased);
  ASSERT_TRUE(plan(biased).run(with_bias).ok());
  EXPECT_EQ(launched(), kFour);

  // A bias whose gradient nobody asks for, that has no element, or that is summed over nothing.
  for (const char* words :
       {"dtype=bf16 sq=30 sk=50 d=64 bias=f32", "dtype=bf16 sq=30 sk=0 d=64 bias=f32 bias_grad",
        "dtype=bf16 b=2 hq=4 hkv=2 sq=300 sk=500 d=128 bias=f32 bias_grad"}) {
    const Problem none = backward(words);
    const Arguments arguments_of_none = arguments(none);
    ASSERT_TRUE(plan(none).run(arguments_of_none).ok()) << words;
    EXPECT_EQ(launched(), kThree) << words;
  }
}

TEST_F(Backward, SizesTilesAndStrides) {
  const Problem p = backward("dtype=bf16 b=2 hq=6 hkv=2 sq=300 sk=500 d=64 dv=32 lse_grad");
  Arguments a = arguments(p);
  a.grad_o.strides = {0, 0, 0, 1};  // an expanded row is a row like any other
  const kernel::BackwardParams got = run(p, a);
  const kernel::PortableSpec row = planned(p).spec;
  EXPECT_EQ(got.f.o.data, a.o.data);
  EXPECT_EQ(got.f.lse.data, a.lse.data);
  EXPECT_EQ(got.f.query_blocks, (300 + row.queries - 1) / row.queries);
  EXPECT_EQ(got.f.tiles, std::int64_t{got.f.query_blocks} * 6 * 2);
  EXPECT_EQ(got.key_blocks, (500 + row.keys - 1) / row.keys);
  EXPECT_EQ(got.key_tiles, std::int64_t{got.key_blocks} * 2 * 2);
  EXPECT_EQ(got.row_blocks, std::int64_t{got.f.query_blocks} * 2);
  EXPECT_EQ(got.f.heads_a_slice, 4) << "all (sequence, key head) pairs: they are small";
  EXPECT_EQ(got.grad_o.data, a.grad_o.data);
  EXPECT_EQ(got.grad_o.h_stride, 0);
  EXPECT_EQ(got.grad_q.data, a.grad_q.data);
  EXPECT_EQ(got.grad_q.b_stride, 300 * 6 * 64);
  EXPECT_EQ(got.grad_k.s_stride, 2 * 64);
  EXPECT_EQ(got.grad_v.s_stride, 2 * 32);
  EXPECT_EQ(got.grad_lse, a.grad_lse.data);
  EXPECT_EQ(got.grad_lse_b_stride, 6 * 300);
  EXPECT_EQ(got.grad_lse_s_stride, 1);
  EXPECT_EQ(got.grad_sink, nullptr);
  EXPECT_EQ(got.grad_alibi, nullptr);
  EXPECT_EQ(got.grad_bias.data, nullptr);
  EXPECT_EQ(got.turns, nullptr);
  EXPECT_EQ(got.key_sum, nullptr);
  EXPECT_EQ(stand_in().launch(0)->grid_x, got.f.tiles);
  EXPECT_EQ(stand_in().launch(1)->grid_x, got.key_tiles);
  EXPECT_EQ(stand_in().launch(2)->grid_x, got.f.tiles);
}

TEST_F(Backward, SinksAndSlopesAreFinishedByBlocksOfTheirOwn) {
  const Problem p = backward(
      "dtype=f16 b=3 hq=4 hkv=4 sq=100 sk=50 d=64 sink sink_grad alibi=batch-head alibi_grad");
  const Arguments a = arguments(p);
  const kernel::BackwardParams got = run(p, a);
  EXPECT_EQ(got.sink_tiles, 4);
  EXPECT_EQ(got.alibi_tiles, 12);
  EXPECT_EQ(got.bias_tiles, 0);
  EXPECT_EQ(got.grad_sink, a.grad_sink.data);
  EXPECT_EQ(got.grad_alibi, a.grad_alibi_slopes.data);
  EXPECT_EQ(got.grad_alibi_b_stride, 4);
  EXPECT_EQ(got.grad_alibi_h_stride, 1);
  EXPECT_NE(got.sink_parts, nullptr);
  EXPECT_NE(got.alibi_parts, nullptr);
  EXPECT_EQ(stand_in().latest()->grid_x, got.f.tiles + 16);
}

TEST_F(Backward, BiasSumsAreSharedWhereTilesAreFew) {
  // One tile of [1, 1, 60, 40], summed over 8 sequences of 16 heads.
  const Problem few =
      backward("dtype=f16 b=8 hq=16 hkv=16 sq=60 sk=40 d=64 bias=f16:11qk bias_grad");
  Arguments a = arguments(few);
  kernel::BackwardParams got = run(few, a);
  const kernel::BiasGradient& g = got.grad_bias;
  EXPECT_EQ(std::vector({g.one_b, g.one_h, g.one_q, g.one_k}), (std::vector{1, 1, 0, 0}));
  EXPECT_EQ(g.sq, 60);
  EXPECT_EQ(g.sk, 40);
  EXPECT_EQ(g.parts, 128) << "as many as there are summands, for 132 multiprocessors";
  EXPECT_EQ(g.tiles, 128);
  EXPECT_NE(g.sums, nullptr);
  EXPECT_EQ(g.element, static_cast<int>(kernel::Element::f16));
  EXPECT_EQ(got.bias_tiles, (60 * 40 + 1023) / 1024);
  EXPECT_EQ(stand_in().launch(2)->grid_x, 128U);
  EXPECT_EQ(stand_in().latest()->grid_x, got.f.tiles + got.bias_tiles);

  // Enough tiles.
  const Problem many =
      backward("dtype=f16 b=8 hq=16 hkv=16 sq=2000 sk=300 d=64 bias=f16:1hqk bias_grad");
  a = arguments(many);
  got = run(many, a);
  EXPECT_EQ(got.grad_bias.parts, 1);
  EXPECT_EQ(got.grad_bias.sums, nullptr);
  EXPECT_EQ(got.bias_tiles, 0);
  const kernel::PortableSpec row = planned(many).spec;
  EXPECT_EQ(got.grad_bias.tiles, std::int64_t{16} * ((2000 + row.queries - 1) / row.queries) *
                                     ((300 + row.keys - 1) / row.keys));

  // Nothing to sum: the keys kernel writes it.
  const Problem own = backward("dtype=f16 b=8 hq=16 hkv=16 sq=200 sk=300 d=64 bias=f16 bias_grad");
  a = arguments(own);
  got = run(own, a);
  EXPECT_EQ(got.grad_bias.tiles, 0);
  EXPECT_EQ(got.grad_bias.data, a.grad_bias.data);
  EXPECT_EQ(got.grad_bias.sums, nullptr);
}

TEST_F(Backward, PackedSequencesCountTheirBlocksInMemory) {
  const Problem p = backward(
      "dtype=bf16 b=3 packed=qk sq=100 sk=90 total_q=250 total_k=200 hq=2 "
      "hkv=1 d=64 deterministic");
  const Arguments a = arguments(p);
  const kernel::BackwardParams got = run(p, a);
  const kernel::PortableSpec row = planned(p).spec;
  EXPECT_EQ(got.row_blocks, 250 / row.queries + 3);
  EXPECT_EQ(got.grad_q.b_stride, 0);
  EXPECT_EQ(got.grad_k.b_stride, 0);
  EXPECT_EQ(got.f.lse.packed, 1);
  EXPECT_NE(got.turns, nullptr);
}

// Without a sequence the kernels see one that is empty, and write what has elements all the same.
TEST_F(Backward, NoSequenceAtAll) {
  for (const char* words :
       {"dtype=f16 b=0 hq=2 hkv=1 sq=40 sk=70 d=32 packed=qk total_q=9 total_k=5 alibi=batch-head "
        "alibi_grad",
        "dtype=f16 b=0 hq=2 hkv=1 sq=40 sk=70 d=32 packed=k total_k=5",
        "dtype=f16 b=0 hq=2 hkv=2 sq=40 sk=70 d=32 sink sink_grad"}) {
    const Problem p = backward(words);
    const Arguments a = arguments(p);
    const kernel::BackwardParams got = run(p, a);
    EXPECT_EQ(got.f.b, 1) << words;
    EXPECT_EQ(got.f.sq, 0) << words;
    EXPECT_EQ(got.f.sk, 0) << words;
    EXPECT_EQ(got.f.alibi, nullptr) << words;
    EXPECT_EQ(got.alibi_tiles, 0) << words;
    EXPECT_EQ(launched(), kThree) << words;
  }
  const Problem p = backward("dtype=f16 b=0 hq=2 hkv=2 sq=40 sk=70 d=32 bias=f32:1hqk bias_grad");
  const Arguments a = arguments(p);
  const kernel::BackwardParams got = run(p, a);
  EXPECT_EQ(got.grad_bias.sq, 40);
  EXPECT_EQ(got.grad_bias.sk, 70);
  EXPECT_EQ(got.grad_bias.parts, 1);
  EXPECT_EQ(launched(), kFour);
}

TEST_F(Backward, LaunchesNothingForEmptyResults) {
  for (const char* words : {"b=0 sq=2 d=8", "sq=0 sk=0 d=8", "b=0 sq=3 d=8 bias=f32 bias_grad"}) {
    const Problem p = backward(words);
    const Arguments a = arguments(p);
    ASSERT_TRUE(plan(p).run(a).ok()) << words;
    EXPECT_EQ(stand_in().launches(), 0) << words;
  }
}

TEST_F(Backward, PiecesOfTheWorkspaceHaveTheirSizesAndDoNotOverlap) {
  const Problem p = backward(
      "dtype=f16 b=2 hq=4 hkv=2 sq=100 sk=300 d=300 dv=70 sink sink_grad alibi=head alibi_grad "
      "bias=f32:11qk bias_grad deterministic");
  const BackwardPlan made = planned(p);
  const kernel::BackwardParams& params = made.params;
  const auto queries = static_cast<std::size_t>(made.spec.queries);
  const auto keys = static_cast<std::size_t>(made.spec.keys);
  const auto row_blocks = static_cast<std::size_t>(params.row_blocks);
  const BackwardWorkspace& w = made.workspace;
  EXPECT_EQ(w.rows.bytes, 2U * 4 * 128 * sizeof(kernel::RowFacts));
  EXPECT_EQ(w.grad_q_sum.bytes, row_blocks * 4 * queries * 320 * 4);
  EXPECT_EQ(w.key_sum.bytes, static_cast<std::size_t>(params.key_tiles) * keys * (320 + 128) * 4);
  EXPECT_EQ(w.alibi_parts.bytes, 2U * 4 * static_cast<std::size_t>(params.key_blocks) * 4);
  EXPECT_EQ(w.sink_parts.bytes,
            2U * 4 * static_cast<std::size_t>(params.f.query_blocks * made.spec.warps) * 4);
  EXPECT_EQ(w.bias_sums.bytes, static_cast<std::size_t>(params.grad_bias.parts) * 100 * 300 * 4);
  EXPECT_GT(params.grad_bias.parts, 1);
  EXPECT_EQ(w.turns.bytes, (1 + row_blocks * 4) * 4);
  std::size_t end = 0;
  for (const WorkspacePiece* piece : {&w.rows, &w.grad_q_sum, &w.key_sum, &w.alibi_parts,
                                      &w.sink_parts, &w.bias_sums, &w.turns}) {
    EXPECT_EQ(piece->offset % 256, 0U) << piece->name;
    EXPECT_GE(piece->offset, end) << piece->name;
    end = piece->offset + piece->bytes;
    EXPECT_NE(describe(made).find(std::to_string(piece->bytes) + " " + piece->name),
              std::string::npos)
        << describe(made);
  }
  EXPECT_LE(end, made.workspace_bytes);
}

TEST_F(Backward, WorkspaceIsTheCallersOrTheStreams) {
  const Problem p = backward("dtype=f16 b=2 hq=4 hkv=2 sq=100 sk=300 d=64");
  const Arguments a = arguments(p);
  const Plan made = plan(p);
  ASSERT_TRUE(made.run(a).ok());
  EXPECT_EQ(stand_in().count("cuMemAllocAsync"), 1);
  EXPECT_EQ(stand_in().count("cuMemFreeAsync"), 1);
  const auto workspace = cuda::DeviceBuffer::allocate(0, made.workspace_bytes());
  ASSERT_TRUE(workspace.ok());
  forget();
  ASSERT_TRUE(made.run(a, {workspace->data(), workspace->size()}).ok());
  EXPECT_EQ(calls(), (Names{"cuCtxGetCurrent", "cuCtxPushCurrent", "cuLaunchKernelEx",
                            "cuLaunchKernelEx", "cuLaunchKernelEx", "cuCtxPopCurrent"}));
  const kernel::BackwardParams& params = stand_in().latest()->backward;
  const auto inside = [&](const void* piece) {
    const auto* at = static_cast<const std::byte*>(piece);
    return at >= workspace->data() && at < workspace->data() + workspace->size();
  };
  EXPECT_TRUE(inside(params.rows));
  EXPECT_TRUE(inside(params.grad_q_sum));
  forget();
  const Status status = made.run(a, {workspace->data(), workspace->size() - 1});
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_EQ(stand_in().launches(), 0);
}

TEST_F(Backward, SizesPast63BitsAreRefusedWithTheirValues) {
  const std::pair<const char*, const char*> cases[] = {
      {"dtype=f32 b=1048576 hq=1024 hkv=1 sq=1073741824 sk=1 d=1 dv=1",
       "the workspace of 18014398509481984 * 64 * 8 bytes for LSE and delta"},
      {"dtype=f32 packed=qk b=2147483646 hq=1048576 hkv=1 sq=2147000000 sk=1 total_q=4 total_k=1 "
       "d=8",
       " * 1048576 * 2147483646 tiles, more than 2^63"}};
  for (const auto& [words, says] : cases) {
    const Expected<Plan> made = make_plan(backward(words));
    ASSERT_FALSE(made.ok()) << words;
    EXPECT_EQ(made.status().code(), Code::unsupported);
    EXPECT_NE(made.status().message().find(says), std::string::npos) << made.status().message();
  }
}

TEST_F(Backward, WarmRunsAllocateNothing) {
  for (const char* words :
       {"dtype=bf16 b=2 hq=8 hkv=2 sq=100 sk=300 d=128 mask=causal-top-left lse_grad",
        "dtype=f16 sq=100 d=64 bias=f16:11q1 bias_grad dropout=0.5 deterministic",
        "dtype=f32 b=3 packed=qk sq=50 d=64 key_lengths alibi=head alibi_grad sink sink_grad"}) {
    const Problem p = backward(words);
    const Arguments a = arguments(p);
    const Plan made = plan(p);
    const auto workspace = cuda::DeviceBuffer::allocate(0, made.workspace_bytes());
    ASSERT_TRUE(workspace.ok());
    ASSERT_TRUE(made.run(a, {workspace->data(), workspace->size()}).ok()) << words;
    stand_in().quiet(true);
    const auto before = allocations();
    const Status status = made.run(a, {workspace->data(), workspace->size()});
    const auto after = allocations();
    stand_in().quiet(false);
    EXPECT_TRUE(status.ok()) << words;
    EXPECT_EQ(after, before) << words;
  }
}

// attention_backward() sees the gradients' strides, and finds a kernel that takes them.
TEST_F(Backward, AttentionLooksAtTheGradientsLayout) {
  const Problem p = backward("dtype=f16 b=2 hq=4 hkv=2 sq=100 sk=200 d=64");
  const Arguments a = arguments(p);
  AttentionOptions options;
  options.device = Device::cuda;
  options.lse = a.lse;
  BackwardTensors tensors{a.q, a.k, a.v, a.o, a.grad_o};
  tensors.grad_q = a.grad_q;
  tensors.grad_k = a.grad_k;
  tensors.grad_v = a.grad_v;
  Status status = attention_backward(tensors, options);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(launched(), kThree);
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 1);
  forget();
  tensors.grad_o.strides = {0, 0, 0, 0};  // the gradient of a sum
  status = attention_backward(tensors, options);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(stand_in().count("cuModuleLoadData"), 1) << "another kernel";
  EXPECT_EQ(launched(), kThree);
}

}  // namespace
}  // namespace attune::testing
