// The generator of the numeric grid, judged itself: what it makes is valid, covers the contract, and
// its traps catch what they are meant to catch.
#include <gtest/gtest.h>

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/random_problem.h"
#include "tests/support/scalar.h"
#include "tests/support/tensor_memory.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

constexpr std::uint64_t kSeeds = 3000;  // the grid's default

TEST(Generator, MakesValidProblemsThatPrintAndParse) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Problem problem = random_problem(seed);
    const Status status = validate(problem);
    ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << print(problem) << "\n"
                             << status.message();
    const Expected<Problem> parsed = parse(print(problem));
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    ASSERT_EQ(*parsed, problem) << "seed " << seed << ": " << print(problem);
    ASSERT_EQ(random_problem(seed), problem);
  }
}

TEST(Generator, CoversTheContract) {
  struct Feature {
    const char* name;
    std::function<bool(const Problem&)> has;
    int times = 0;
  };
  const auto alike = [](const Problem& p) {
    return p.sq > 1 && p.sk > 1 && p.d > 1 && p.dv > 1 && p.b > 0;
  };
  std::vector<Feature> features = {
      {"b = 0", [](const Problem& p) { return p.b == 0; }},
      {"sq = 0", [](const Problem& p) { return p.sq == 0; }},
      {"sk = 0", [](const Problem& p) { return p.sk == 0; }},
      {"d = 0", [](const Problem& p) { return p.d == 0; }},
      {"dv = 0", [](const Problem& p) { return p.dv == 0; }},
      {"sq = sk", [&](const Problem& p) { return alike(p) && p.sq == p.sk; }},
      {"sq < sk", [&](const Problem& p) { return alike(p) && p.sq < p.sk; }},
      {"sq > sk", [&](const Problem& p) { return alike(p) && p.sq > p.sk; }},
      {"long keys", [](const Problem& p) { return p.sk > 500 && p.sq > 0; }},
      {"grouped heads", [](const Problem& p) { return p.hq > p.hkv && p.hkv > 1; }},
      {"d != dv", [](const Problem& p) { return p.d != p.dv; }},
      {"d > 128", [](const Problem& p) { return p.d > 128; }},
      {"causal bottom right, sq > sk",
       [](const Problem& p) {
         return p.mask.causal && p.mask.diagonal == Diagonal::bottom_right && p.sq > p.sk;
       }},
      {"causal top left",
       [](const Problem& p) { return p.mask.causal && p.mask.diagonal == Diagonal::top_left; }},
      {"causal window", [](const Problem& p) { return p.mask.causal && p.mask.left >= 0; }},
      {"window of 0, 0", [](const Problem& p) { return p.mask.left == 0 && p.mask.right == 0; }},
      {"window both sides", [](const Problem& p) { return p.mask.left > 0 && p.mask.right > 0; }},
      {"window right only", [](const Problem& p) { return p.mask.left < 0 && p.mask.right >= 0; }},
      {"negative offset", [](const Problem& p) { return p.mask.offset < 0; }},
      {"offset far outside", [](const Problem& p) { return std::abs(p.mask.offset) > 4000; }},
      {"scale 0", [](const Problem& p) { return p.scale && *p.scale == 0; }},
      {"negative scale", [](const Problem& p) { return p.scale && *p.scale < 0; }},
      {"softcap", [](const Problem& p) { return p.softcap > 0; }},
      {"boolean bias", [](const Problem& p) { return p.bias.kind == BiasKind::boolean; }},
      {"additive bias of another dtype",
       [](const Problem& p) {
         return p.bias.kind == BiasKind::additive && p.bias.dtype != p.dtype;
       }},
      {"bias gradient", [](const Problem& p) { return p.bias.grad; }},
      {"bias with causal and packed keys",
       [](const Problem& p) {
         return p.bias.kind != BiasKind::none && p.mask.causal && p.packed_k;
       }},
      {"ALiBi per batch and head gradient",
       [](const Problem& p) { return p.alibi == PerHead::batch_head && p.alibi_grad; }},
      {"sink gradient", [](const Problem& p) { return p.sink_grad; }},
      {"dropout forward",
       [](const Problem& p) { return p.dropout > 0 && p.kind == Kind::forward; }},
      {"dropout backward",
       [](const Problem& p) { return p.dropout > 0 && p.kind == Kind::backward; }},
      {"dropout of FA2's stream forward",
       [](const Problem& p) {
         return p.dropout_stream == DropoutStream::fa2 && p.kind == Kind::forward;
       }},
      {"dropout of FA2's stream backward",
       [](const Problem& p) {
         return p.dropout_stream == DropoutStream::fa2 && p.kind == Kind::backward;
       }},
      {"dropout packed", [](const Problem& p) { return p.dropout > 0 && p.packed_q; }},
      {"key lengths", [](const Problem& p) { return p.key_lengths; }},
      {"packed q only", [](const Problem& p) { return p.packed_q && !p.packed_k; }},
      {"packed k only", [](const Problem& p) { return !p.packed_q && p.packed_k; }},
      {"packed both", [](const Problem& p) { return p.packed_q && p.packed_k; }},
      {"packed with key lengths", [](const Problem& p) { return p.packed_k && p.key_lengths; }},
      {"aligned bias", [](const Problem& p) { return p.bias.aligned; }},
      {"page size 1", [](const Problem& p) { return p.page_size == 1; }},
      {"page size 3", [](const Problem& p) { return p.page_size == 3; }},
      {"page size 16", [](const Problem& p) { return p.page_size == 16; }},
      {"page size 48", [](const Problem& p) { return p.page_size == 48; }},
      {"page size 64", [](const Problem& p) { return p.page_size == 64; }},
      {"page size 256", [](const Problem& p) { return p.page_size == 256; }},
      {"paged backward",
       [](const Problem& p) { return p.page_size > 0 && p.kind == Kind::backward; }},
      {"paged with packed q", [](const Problem& p) { return p.page_size > 0 && p.packed_q; }},
      {"padded LSE packed",
       [](const Problem& p) { return p.lse == LseLayout::padded32 && p.packed_q; }},
      {"LSE gradient", [](const Problem& p) { return p.lse_grad; }},
      {"deterministic backward",
       [](const Problem& p) { return p.deterministic && p.kind == Kind::backward; }},
      {"q walks back", [](const Problem& p) { return p.q_strides[3] < 0; }},
      {"k heads repeat",
       [](const Problem& p) { return p.k_strides[3] != 0 && p.k_strides[2] == 0 && p.hkv > 1; }},
      {"last stride 2", [](const Problem& p) { return p.v_strides[3] == 2; }},
      {"o heads first", [](const Problem& p) { return p.o_strides[2] > p.o_strides[1]; }},
  };
  for (int subset = 0; subset < 16; ++subset) {
    features.push_back({"bias broadcast subset", [subset](const Problem& p) {
                          return p.bias.kind == BiasKind::additive &&
                                 p.bias.broadcast_b == ((subset & 1) != 0) &&
                                 p.bias.broadcast_h == ((subset & 2) != 0) &&
                                 p.bias.broadcast_q == ((subset & 4) != 0) &&
                                 p.bias.broadcast_k == ((subset & 8) != 0);
                        }});
  }
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Problem problem = random_problem(seed);
    for (Feature& feature : features) feature.times += feature.has(problem) ? 1 : 0;
  }
  for (const Feature& feature : features) EXPECT_GE(feature.times, 3) << feature.name;
}

TEST(Generator, ArgumentsPassCheck) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const Problem problem = random_problem(seed);
    const auto distribution = static_cast<Distribution>(seed % 6);
    const Tensors tensors(problem, distribution, seed);
    const Status status = check(problem, tensors.arguments());
    ASSERT_TRUE(status.ok()) << "seed " << seed << " " << to_string(distribution) << ": "
                             << print(problem) << "\n"
                             << status.message();
  }
}

TEST(TensorMemory, SeesWritesBetweenAndAroundTheElements) {
  TensorMemory memory(DType::f32, {2, 3}, {8, 2}, Edge::front);
  for_each_index(memory.view(), [&](const Index& i) { memory.set(i, 1.0); });
  EXPECT_EQ(memory.damage(), "");
  auto* const data = static_cast<float*>(memory.view().data);
  data[1] = 0;  // between two elements
  EXPECT_NE(memory.damage(), "");
  memory.poison();
  EXPECT_EQ(memory.damage(), "");
  data[13] = 0;  // behind the last element, which is 8 + 4
  EXPECT_NE(memory.damage(), "");
}

TEST(TensorMemory, SeesChangedInputs) {
  TensorMemory memory(DType::bf16, {5});
  for (std::int64_t i = 0; i < 5; ++i) memory.set(i, static_cast<double>(i));
  memory.seal();
  EXPECT_EQ(memory.damage(), "");
  memory.set(3, 4);
  EXPECT_NE(memory.damage(), "");
}

TEST(TensorMemory, EndsAtAPageThatCannotBeTouched) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const TensorMemory memory(DType::f32, {7}, {}, Edge::back);
  const volatile float* const data = static_cast<const float*>(memory.view().data);
  EXPECT_DEATH({ [[maybe_unused]] const float beyond = data[7]; }, "");
}

TEST(TensorMemory, WalksBackwards) {
  TensorMemory memory(DType::i32, {3, 2}, {-2, 1});
  for_each_index(memory.view(),
                 [&](const Index& i) { memory.set(i, static_cast<double>(10 * i[0] + i[1])); });
  const auto* const data = static_cast<const std::int32_t*>(memory.view().data);
  EXPECT_EQ(data[-2], 10);
  EXPECT_EQ(data[-3], 21);
  EXPECT_EQ(data[1], 1);
}

TEST(Scalar, RoundsToNearestEven) {
  const auto round = [](DType dtype, double value) {
    std::uint64_t bits = 0;
    store_scalar(&bits, dtype, value);
    return load_scalar(&bits, dtype);
  };
  EXPECT_EQ(round(DType::f16, 1 + 0x1p-11), 1.0);
  EXPECT_EQ(round(DType::f16, 1 + 0x3p-11), 1 + 0x1p-9);
  EXPECT_EQ(round(DType::f16, 0x1p-25), 0.0);
  EXPECT_EQ(round(DType::f16, 0x3p-26), 0x1p-24);
  EXPECT_EQ(round(DType::f16, 0x1p-14 - 0x1p-26), 0x1p-14);
  EXPECT_EQ(round(DType::f16, 2047.75), 2048.0);
  EXPECT_EQ(round(DType::f16, 65519.0), 65504.0);
  EXPECT_EQ(round(DType::f16, -65520.0), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(round(DType::bf16, 1 + 0x1p-8), 1.0);
  EXPECT_EQ(round(DType::bf16, 1 + 0x3p-8), 1 + 0x1p-6);
  EXPECT_TRUE(std::isnan(round(DType::bf16, std::numeric_limits<double>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(round(DType::f16, std::numeric_limits<double>::quiet_NaN())));
}

}  // namespace
}  // namespace attune::testing
