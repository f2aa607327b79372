// Named edge cases, each on every kernel that this machine can run.
#include <gtest/gtest.h>

#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/device_under_test.h"
#include "tests/support/judge.h"
#include "tests/support/random.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Case {
  Kind kind;
  DType dtype;
};

std::string name_of(const ::testing::TestParamInfo<Case>& test) {
  return (test.param.kind == Kind::forward ? "forward_" : "backward_") +
         std::string(to_string(test.param.dtype));
}

class Edges : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string reason = skip_reason(GetParam().kind, GetParam().dtype);
    if (!reason.empty()) GTEST_SKIP() << reason;
  }

  [[nodiscard]] Problem base() const {
    Problem p;
    p.kind = GetParam().kind;
    p.device = Device::cpu;
    p.dtype = GetParam().dtype;
    p.descale = p.dtype == DType::f8e4m3;
    p.lse = LseLayout::plain;
    p.b = 2;
    p.hq = 4;
    p.hkv = 2;
    p.sq = 37;
    p.sk = 50;
    // Of eighths a GPU takes multiples of 16 alone.
    const bool whole = on_gpu() && p.dtype == DType::f8e4m3;
    p.d = whole ? 48 : 40;
    p.dv = whole ? 32 : 24;
    return p;
  }

  // Every gradient that the Problem can have.
  static void ask_all_gradients(Problem& p) {
    if (p.kind == Kind::forward) return;
    p.bias.grad = p.bias.kind == BiasKind::additive;
    p.alibi_grad = p.alibi != PerHead::none;
    p.sink_grad = p.sink;
    p.lse_grad = true;
  }
};

Bias additive(DType dtype = DType::f32) {
  Bias bias;
  bias.kind = BiasKind::additive;
  bias.dtype = dtype;
  return bias;
}

Bias boolean() {
  Bias bias;
  bias.kind = BiasKind::boolean;
  bias.dtype = DType::boolean;
  return bias;
}

const TensorMemory& output_named(const Tensors& tensors, std::string_view name) {
  for (const Tensors::Output& output : tensors.outputs()) {
    if (output.name == name) return *output.memory;
  }
  ADD_FAILURE() << "no output " << name;
  return *tensors.outputs().front().memory;
}

// Runs every kernel and expects exact zeros in all outputs, -inf in the LSE.
void expect_nothing_attended(const Problem& p, Tensors& tensors) {
  const std::string reason = skip_reason(p, tensors.arguments());
  if (!reason.empty()) GTEST_SKIP() << reason;
  ASSERT_EQ(judge_problem(p, tensors), "");
  for (const Tensors::Output& output : tensors.outputs()) {
    const double want = output.name == "lse" ? -kInfinity : 0;
    for_each_index(output.memory->view(), [&](const Index& i) {
      ASSERT_EQ(output.memory->get(i), want) << output.name << ": " << print(p);
    });
  }
}

TEST_P(Edges, OneQuery) {
  Problem p = base();
  p.sq = 1;
  p.sk = 1;
  EXPECT_EQ(judge_problem(p), "");
  p.sk = 301;
  EXPECT_EQ(judge_problem(p), "");
  p.hq = 14;
  p.mask.causal = true;
  EXPECT_EQ(judge_problem(p), "");
}

TEST_P(Edges, OneKey) {
  Problem p = base();
  p.sk = 1;
  ask_all_gradients(p);
  EXPECT_EQ(judge_problem(p), "");
  p.sink = true;
  p.dropout = 0.5;
  EXPECT_EQ(judge_problem(p), "");
}

TEST_P(Edges, EveryRowMaskedByBooleanBias) {
  Problem p = base();
  p.bias = boolean();
  Tensors tensors(p, Distribution::normal, 1);
  tensors.edit("bias", [](const Index&) { return 0; });
  expect_nothing_attended(p, tensors);
}

TEST_P(Edges, EveryRowMaskedByInfiniteBias) {
  Problem p = base();
  p.bias = additive();
  ask_all_gradients(p);
  Tensors tensors(p, Distribution::normal, 1);
  tensors.edit("bias", [](const Index&) { return -kInfinity; });
  expect_nothing_attended(p, tensors);
}

TEST_P(Edges, NoSequenceHasKeys) {
  Problem p = base();
  p.key_lengths = true;
  p.alibi = PerHead::head;
  ask_all_gradients(p);
  Tensors tensors(p, Distribution::normal, 1);
  tensors.edit("key_lengths", [](const Index&) { return 0; });
  expect_nothing_attended(p, tensors);
}

TEST_P(Edges, WindowWhollyOutside) {
  for (const std::int64_t offset : {std::int64_t{1000}, std::int64_t{-1000}}) {
    Problem p = base();
    p.mask.left = 3;
    p.mask.right = 2;
    p.mask.offset = offset;
    Tensors tensors(p, Distribution::normal, 1);
    expect_nothing_attended(p, tensors);
  }
}

TEST_P(Edges, PoisonInEveryKeyThatNobodyAttendsTo) {
  Problem p = base();
  p.sk = 200;
  p.mask.left = 5;
  p.mask.right = 0;
  p.mask.diagonal = Diagonal::top_left;  // keys past the 37th are seen by nobody
  EXPECT_EQ(judge_problem(p, Distribution::poison), "");
  p.mask = {};
  p.key_lengths = true;
  EXPECT_EQ(judge_problem(p, Distribution::poison), "");
  p.bias = boolean();
  p.bias.broadcast_q = true;
  EXPECT_EQ(judge_problem(p, Distribution::poison), "");
  p.bias = additive(p.o_dtype());
  p.bias.broadcast_b = p.bias.broadcast_h = p.bias.broadcast_q = true;
  ask_all_gradients(p);
  EXPECT_EQ(judge_problem(p, Distribution::poison), "");
}

TEST_P(Edges, MaskedRowsWithASink) {
  Problem p = base();
  p.sink = true;
  p.key_lengths = true;
  ask_all_gradients(p);
  Tensors tensors(p, Distribution::normal, 1);
  tensors.edit("key_lengths", [](const Index& i) { return i[0] == 0 ? 0 : 50; });
  const std::string reason = skip_reason(p, tensors.arguments());
  if (!reason.empty()) GTEST_SKIP() << reason;
  ASSERT_EQ(judge_problem(p, tensors), "");
  if (p.kind == Kind::backward) return;
  const TensorMemory& lse = output_named(tensors, "lse");
  const auto* sink = static_cast<const float*>(tensors.arguments().sink.data);
  const std::int64_t step = tensors.arguments().sink.strides[0];
  for (std::int64_t h = 0; h < p.hq; ++h) {
    for (std::int64_t i = 0; i < p.sq; ++i) {
      EXPECT_FLOAT_EQ(static_cast<float>(lse.get({0, h, i, 0})), sink[h * step]);
    }
  }
  const TensorMemory& o = output_named(tensors, "o");
  for (std::int64_t i = 0; i < p.sq; ++i) EXPECT_EQ(o.get({0, i, 1, 3}), 0.0);
}

TEST_P(Edges, EmptySizes) {
  for (int size = 0; size < 5; ++size) {
    Problem p = base();
    p.bias = additive();
    p.sink = true;
    p.alibi = PerHead::batch_head;
    ask_all_gradients(p);
    if (size == 0) p.b = 0;
    if (size == 1) p.sq = 0;
    if (size == 2) p.sk = 0;
    if (size == 3) p.dv = 0;
    if (size == 4) {
      p.d = 0;
      p.scale = 1.0;
    }
    EXPECT_EQ(judge_problem(p), "");
  }
  Problem p = base();
  p.packed_q = p.packed_k = true;  // b sequences without a token
  EXPECT_EQ(judge_problem(p), "");
  p.total_q = p.total_k = 5;
  p.b = 0;  // tokens without a sequence
  EXPECT_EQ(judge_problem(p), "");
}

TEST_P(Edges, AllScoresEqual) {
  Problem p = base();
  p.sk = 700;
  EXPECT_EQ(judge_problem(p, Distribution::equal), "");
  p.scale = 0.0;
  EXPECT_EQ(judge_problem(p, Distribution::normal), "");
}

TEST_P(Edges, LargeScores) {
  Problem p = base();
  p.sk = 300;
  EXPECT_EQ(judge_problem(p, Distribution::large), "");
  EXPECT_EQ(judge_problem(p, Distribution::outliers), "");
  p.softcap = 30;
  EXPECT_EQ(judge_problem(p, Distribution::large), "");
  p.softcap = 0;
  p.scale = -2.0;
  EXPECT_EQ(judge_problem(p, Distribution::normal), "");
}

// Scores that rise or fall by hundreds on the way to a row's own place among keys, or beyond either end of them.
TEST_P(Edges, SteepSlopes) {
  Problem p = base();
  p.alibi = PerHead::head;
  ask_all_gradients(p);
  p.b = 1;
  const double slopes[] = {1, -0.5, 0, 8};
  struct Shape {
    std::int64_t sq, sk;
    bool causal;
    std::int64_t offset;
  };
  for (const Shape& shape :
       {Shape{70, 600, false, 0}, Shape{600, 70, false, 0}, Shape{100, 400, true, 0},
        Shape{100, 400, true, 300}, Shape{400, 100, true, 0}}) {
    p.sq = shape.sq;
    p.sk = shape.sk;
    p.mask.causal = shape.causal;
    p.mask.offset = shape.offset;
    if (const std::string reason = skip_reason(p); !reason.empty()) GTEST_SKIP() << reason;
    Tensors tensors(p, Distribution::normal, 1);
    tensors.edit("alibi_slopes", [&](const Index& i) { return slopes[i[0]]; });
    EXPECT_EQ(judge_problem(p, tensors), "") << print(p);
  }
}

// "Masked out" as many models write it: finite, and as low as the dtype goes.
TEST_P(Edges, HugeNegativeBias) {
  Problem p = base();
  p.bias = additive();
  ask_all_gradients(p);
  if (const std::string reason = skip_reason(p); !reason.empty()) GTEST_SKIP() << reason;
  Tensors tensors(p, Distribution::normal, 1);
  // Forward: every fifth row has nothing else, and all its keys count alike. Not in backward, which
  // starts from a float32 LSE: -1e30 + ln 50 is -1e30 there.
  const bool whole_rows = p.kind == Kind::forward;
  const double lowest = std::numeric_limits<float>::lowest();
  for (const double huge : {-1e4, -1e30, lowest}) {
    Random random(4);
    tensors.edit("bias", [&](const Index& i) {
      return (whole_rows && i[2] % 5 == 0) || random.chance(0.7) ? huge : random.normal();
    });
    EXPECT_EQ(judge_problem(p, tensors), "") << huge;
    if (!whole_rows) continue;
    // Only -inf masks out, so such a row has an o and a finite LSE, however low its scores.
    for (std::int64_t i = 0; i < p.sq; i += 5) {
      EXPECT_TRUE(std::isfinite(output_named(tensors, "lse").get({0, 0, i, 0}))) << huge;
      EXPECT_NE(output_named(tensors, "o").get({0, i, 0, 0}), 0.0) << huge;
    }
  }
}

// As models pad: the last keys are hidden from all, by a bias of the tensors' own dtype in rows that kernels may
// copy. Where blocks of keys go from the last to the first, a row's first ones all but hide it.
TEST_P(Edges, ABiasHidesTheLastKeys) {
  Problem p = base();
  p.sq = 70;
  p.sk = 600;
  p.bias = additive(p.o_dtype());
  p.bias.aligned = true;
  ask_all_gradients(p);
  Tensors tensors(p, Distribution::normal, 1);
  const double lowest = p.dtype == DType::f16 ? -65504 : -3.38e38;
  for (const double hidden : {-kInfinity, lowest}) {
    Random random(5);
    tensors.edit("bias", [&](const Index& i) { return i[3] >= 150 ? hidden : random.normal(); });
    EXPECT_EQ(judge_problem(p, tensors), "") << hidden;
  }
}

// The keys that a bias of -inf leaves out, whatever their products are.
TEST_P(Edges, PoisonUnderABias) {
  Problem p = base();
  p.sk = 300;
  p.bias = additive(p.o_dtype());
  p.bias.aligned = true;
  ask_all_gradients(p);
  Tensors tensors(p, Distribution::normal, 1);
  const auto is_out = [](std::int64_t key) { return key % 7 == 3 || key > 280; };
  Random random(6);
  const auto poisoned = [&](const Index& i) {
    if (!is_out(i[1])) return random.normal();
    return i[1] % 2 == 0 ? kInfinity : std::numeric_limits<double>::quiet_NaN();
  };
  tensors.edit("k", poisoned);
  tensors.edit("v", poisoned);
  tensors.edit("bias", [&](const Index& i) { return is_out(i[3]) ? -kInfinity : random.normal(); });
  EXPECT_EQ(judge_problem(p, tensors), "");
}

TEST_P(Edges, MoreQueriesThanKeysBottomRight) {
  Problem p = base();
  p.sq = 100;
  p.sk = 33;
  p.mask.causal = true;  // the first 67 rows see nothing
  ask_all_gradients(p);
  EXPECT_EQ(judge_problem(p), "");
  p.mask.left = 4;
  EXPECT_EQ(judge_problem(p), "");
}

TEST_P(Edges, DiagonalsAtTheirLimits) {
  Problem p = base();
  p.mask.causal = true;
  for (const std::int64_t offset : {-(std::int64_t{1} << 62), std::int64_t{1} << 62}) {
    p.mask.offset = offset;
    for (const std::int64_t side :
         {std::int64_t{-1}, std::int64_t{0}, std::numeric_limits<std::int64_t>::max()}) {
      p.mask.left = p.mask.right = side;
      EXPECT_EQ(judge_problem(p), "");
    }
  }
}

TEST_P(Edges, PagesOfOneKey) {
  Problem p = base();
  if (on_gpu() && p.kind == Kind::backward) GTEST_SKIP() << "no GPU kernel has gradients of pages";
  p.page_size = 1;
  p.pages = 80;
  p.key_lengths = true;
  EXPECT_EQ(judge_problem(p, Distribution::poison), "");
}

TEST_P(Edges, PagesOfManyKeys) {
  Problem p = base();
  if (on_gpu() && p.kind == Kind::backward) GTEST_SKIP() << "no GPU kernel has gradients of pages";
  p.sq = 70;
  p.sk = 600;
  p.key_lengths = true;
  for (const std::int64_t size : {8, 16, 48, 128, 1000}) {
    p.page_size = size;
    p.pages = 2 * ((p.sk + size - 1) / size) + 3;
    EXPECT_EQ(judge_problem(p, Distribution::poison), "") << size;
  }
  p.mask.causal = true;
  p.softcap = 20;
  p.alibi = PerHead::batch_head;
  EXPECT_EQ(judge_problem(p, Distribution::poison), "");
}

TEST_P(Edges, LseGradientAlone) {
  Problem p = base();
  if (p.kind == Kind::forward) GTEST_SKIP() << "backward only";
  p.lse_grad = true;
  p.sink = p.sink_grad = true;
  Tensors tensors(p, Distribution::normal, 1);
  tensors.edit("grad_o", [](const Index&) { return 0; });
  EXPECT_EQ(judge_problem(p, tensors), "");
}

TEST_P(Edges, HeadDimOf65536) {
  Problem p = base();
  p.b = 1;
  p.hq = p.hkv = 1;
  p.sq = p.sk = 3;
  p.d = p.dv = 65536;
  if (const std::string reason = skip_reason(p); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(judge_problem(p), "");
  p.d = 5;
  EXPECT_EQ(judge_problem(p), "");
  p.d = 65536;
  p.dv = 7;
  EXPECT_EQ(judge_problem(p), "");
}

TEST_P(Edges, SeventyThousandHeads) {
  Problem p = base();
  p.b = 1;
  p.hq = 70000;
  p.hkv = 35000;
  p.sq = p.sk = 1;
  p.d = p.dv = 4;
  if (const std::string reason = skip_reason(p); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(judge_problem(p), "");
}

TEST_P(Edges, SeventyThousandSequences) {
  Problem p = base();
  p.b = 70000;
  p.hq = p.hkv = 1;
  p.sq = p.sk = 2;
  p.d = p.dv = 4;
  if (const std::string reason = skip_reason(p); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(judge_problem(p), "");
  p.packed_q = p.packed_k = true;
  p.total_q = p.total_k = 140000;
  EXPECT_EQ(judge_problem(p), "");
}

// Keys that no query sees and queries that see no key: their gradients are zero, not just small.
TEST_P(Edges, UnattendedRowsGetExactZeros) {
  Problem p = base();
  if (p.kind == Kind::forward) GTEST_SKIP() << "backward only";
  p.sq = 70;
  p.sk = 90;
  p.mask.causal = true;
  p.mask.diagonal = Diagonal::top_left;
  p.mask.offset = -6;  // rows 0 to 5 see nothing; keys from 64 on are seen by nobody
  p.dropout = 0.3;
  Tensors tensors(p, Distribution::poison, 2);
  const std::string reason = skip_reason(p, tensors.arguments());
  if (!reason.empty()) GTEST_SKIP() << reason;
  ASSERT_EQ(judge_problem(p, tensors), "");
  const auto expect_zeros = [&](std::string_view name, std::int64_t first, std::int64_t last) {
    const TensorMemory& memory = output_named(tensors, name);
    for_each_index(memory.view(), [&](const Index& i) {
      if (i[1] >= first && i[1] <= last) {
        ASSERT_EQ(memory.get(i), 0.0) << name << " token " << i[1];
      }
    });
  };
  expect_zeros("grad_q", 0, 5);
  expect_zeros("grad_k", 64, 89);
  expect_zeros("grad_v", 64, 89);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, Edges,
    ::testing::Values(Case{Kind::forward, DType::f32}, Case{Kind::forward, DType::f16},
                      Case{Kind::forward, DType::bf16}, Case{Kind::forward, DType::f8e4m3},
                      Case{Kind::backward, DType::f32}, Case{Kind::backward, DType::f16},
                      Case{Kind::backward, DType::bf16}),
    name_of);

}  // namespace
}  // namespace attune::testing
