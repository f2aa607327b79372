// Every rule between the values of a Problem: what is refused, in which words, and what is not.
#include <gtest/gtest.h>

#include <attune/problem.hpp>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace attune {
namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();

struct Case {
  const char* says;
  std::function<void(Problem&)> change;
};

Problem backward() {
  Problem p;
  p.kind = Kind::backward;
  p.lse = LseLayout::plain;
  return p;
}

void expect_refused(const Problem& start, const std::vector<Case>& cases) {
  ASSERT_TRUE(validate(start).ok()) << validate(start).message();
  for (const Case& c : cases) {
    Problem p = start;
    c.change(p);
    const Status status = validate(p);
    EXPECT_EQ(status.code(), Code::invalid_argument) << c.says;
    EXPECT_NE(status.message().find(c.says), std::string::npos)
        << "says:  " << status.message() << "\nwants: " << c.says;
  }
}

TEST(Validate, RefusesSizes) {
  expect_refused(
      Problem{},
      {
          {"b = -1 is too small: sequences start at 0", [](Problem& p) { p.b = -1; }},
          {"b = 9223372036854775807 is too large", [](Problem& p) { p.b = kMax; }},
          {"hq = 0 is too small: query heads start at 1", [](Problem& p) { p.hq = 0; }},
          {"hkv = 0 is too small", [](Problem& p) { p.hkv = 0; }},
          {"sq = -9223372036854775808 is too small", [](Problem& p) { p.sq = kMin; }},
          {"sq = 2147479552 is too large: at most 2147479551",
           [](Problem& p) { p.sq = 2147479552; }},
          {"sk = 2147479552 is too large", [](Problem& p) { p.sk = 2147479552; }},
          {"d = 65537 is too large: at most 65536", [](Problem& p) { p.d = 65537; }},
          {"dv = -2 is too small", [](Problem& p) { p.dv = -2; }},
          {"hq = 6 is not a multiple of hkv = 4; each KV head serves hq / hkv query heads",
           [](Problem& p) {
             p.hq = 6;
             p.hkv = 4;
           }},
          {"hq = 1 is not a multiple of hkv = 2", [](Problem& p) { p.hkv = 2; }},
      });
}

TEST(Validate, RefusesProductsPastInt64) {
  expect_refused(Problem{}, {
                                {"q [B, Sq, Hq, D] = [2000000000, 2000000000, 1, 64] is larger "
                                 "than 2^63 bytes",
                                 [](Problem& p) { p.b = p.sq = 2000000000; }},
                                {"k [B, Sk, Hkv, D]", [](Problem& p) { p.b = p.sk = 2000000000; }},
                                {"v [B, Sk, Hkv, Dv]",
                                 [](Problem& p) {
                                   p.b = p.sk = 1 << 30;
                                   p.d = 1;
                                   p.dv = 8;
                                 }},
                                // Extents of 0 don't hide the strides' overflow.
                                {"larger than 2^63 bytes",
                                 [](Problem& p) {
                                   p.b = 0;
                                   p.sq = 2000000000;
                                   p.hq = 2000000000;
                                 }},
                                {"bias [B or 1, Hq or 1, Sq or 1, Sk or 1]",
                                 [](Problem& p) {
                                   p.b = 16;
                                   p.sq = p.sk = 1 << 30;
                                   p.d = p.dv = 1;
                                   p.bias = {.kind = BiasKind::additive};
                                 }},
                                {"dropout numbers the elements b * hq * sq * sk",
                                 [](Problem& p) {
                                   p.b = 16;
                                   p.sq = p.sk = 1 << 30;
                                   p.d = p.dv = 1;
                                   p.dropout = 0.5;
                                 }},
                            });
  Problem large;
  large.b = 16;
  large.sq = large.sk = 1 << 30;
  large.d = large.dv = 1;
  large.bias = {.kind = BiasKind::additive, .broadcast_q = true};
  EXPECT_TRUE(validate(large).ok()) << validate(large).message();
}

TEST(Validate, RefusesNumbers) {
  const double nan = std::nan("");
  const double inf = std::numeric_limits<double>::infinity();
  expect_refused(
      Problem{},
      {
          {"scale = nan is not a finite", [=](Problem& p) { p.scale = nan; }},
          {"scale = -inf is not a finite", [=](Problem& p) { p.scale = -inf; }},
          {"scale = 1e+300 is not a finite float32", [](Problem& p) { p.scale = 1e300; }},
          {"softcap = nan", [=](Problem& p) { p.softcap = nan; }},
          {"softcap = inf", [=](Problem& p) { p.softcap = inf; }},
          {"softcap = -1", [](Problem& p) { p.softcap = -1; }},
          {"softcap = 1e-300 is below", [](Problem& p) { p.softcap = 1e-300; }},
          {"dropout = 1 is not a probability to drop", [](Problem& p) { p.dropout = 1; }},
          {"dropout = 1.5 is not", [](Problem& p) { p.dropout = 1.5; }},
          {"dropout = -0.1 is not", [](Problem& p) { p.dropout = -0.1; }},
          {"dropout = nan is not", [=](Problem& p) { p.dropout = nan; }},
          {"dropout = 0.999999999999 rounds to 1", [](Problem& p) { p.dropout = 0.999999999999; }},
          {"d = 0 leaves the default scale", [](Problem& p) { p.d = 0; }},
      });
}

TEST(Validate, KnowsWhatFa2sStreamCanDrop) {
  const auto drop = [](double probability) {
    return [probability](Problem& p) {
      p.dropout = probability;
      p.dropout_stream = DropoutStream::fa2;
    };
  };
  expect_refused(
      Problem{},
      {
          {"dropout_stream = fa2 is set, but the problem has no dropout", drop(0)},
          {"dropout = 0.0039 is out of reach of dropout_stream = fa2, whose bytes drop from 1/256 "
           "to 255/256",
           drop(0.0039)},
          {"dropout = 0.9961 is out of reach", drop(0.9961)},
          {"dropout = 1 is not a probability to drop", drop(1)},
          {"dropout_stream = 2 is not one of its named values",
           [](Problem& p) {
             p.dropout = 0.5;
             p.dropout_stream = static_cast<DropoutStream>(2);
           }},
      });
  for (const double probability : {1.0 / 256, 0.1, 0.5, 255.0 / 256}) {
    Problem p;
    drop(probability)(p);
    EXPECT_TRUE(validate(p).ok()) << validate(p).message();
  }
}

TEST(Validate, RefusesMasks) {
  expect_refused(
      Problem{},
      {
          {"mask.left = -2 is not a window side", [](Problem& p) { p.mask.left = -2; }},
          {"mask.right = -9223372036854775808", [](Problem& p) { p.mask.right = kMin; }},
          {"mask.offset = 9223372036854775807 is out of range",
           [](Problem& p) { p.mask.offset = kMax; }},
          {"mask.offset = -9223372036854775808", [](Problem& p) { p.mask.offset = kMin; }},
      });
}

TEST(Validate, RefusesDtypesAndBiases) {
  expect_refused(
      Problem{},
      {
          {"dtype = f64 is not supported", [](Problem& p) { p.dtype = DType::f64; }},
          {"descale is set, but dtype = f32: only q, k and v of f8e4m3 have scales",
           [](Problem& p) { p.descale = true; }},
          {"an additive bias is f32, f16 or bf16, not f8e4m3",
           [](Problem& p) { p.bias = {.kind = BiasKind::additive, .dtype = DType::f8e4m3}; }},
          {"dtype = unknown dtype", [](Problem& p) { p.dtype = static_cast<DType>(77); }},
          {"kind = 9 is not one of its named values",
           [](Problem& p) { p.kind = static_cast<Kind>(9); }},
          {"device = 9", [](Problem& p) { p.device = static_cast<Device>(9); }},
          {"lse = 9", [](Problem& p) { p.lse = static_cast<LseLayout>(9); }},
          {"alibi = 9", [](Problem& p) { p.alibi = static_cast<PerHead>(9); }},
          {"bias.kind = 9", [](Problem& p) { p.bias.kind = static_cast<BiasKind>(9); }},
          {"mask.diagonal = 9", [](Problem& p) { p.mask.diagonal = static_cast<Diagonal>(9); }},
          {"a boolean bias has dtype bool, not f32",
           [](Problem& p) { p.bias.kind = BiasKind::boolean; }},
          {"an additive bias is f32, f16 or bf16, not i32",
           [](Problem& p) { p.bias = {.kind = BiasKind::additive, .dtype = DType::i32}; }},
          {"its kind is none", [](Problem& p) { p.bias.broadcast_q = true; }},
          {"bias.aligned is set, but the problem has no bias",
           [](Problem& p) { p.bias.aligned = true; }},
      });
}

TEST(Validate, RefusesGradientsOfNothing) {
  expect_refused(Problem{},
                 {
                     {"bias.grad is set, but the problem is a forward one",
                      [](Problem& p) { p.bias = {.kind = BiasKind::additive, .grad = true}; }},
                     {"sink_grad is set, but the problem is a forward one",
                      [](Problem& p) { p.sink = p.sink_grad = true; }},
                     {"alibi_grad is set, but the problem is a forward one",
                      [](Problem& p) { p.alibi_grad = true; }},
                     {"lse_grad is set, but the problem is a forward one",
                      [](Problem& p) { p.lse_grad = true; }},
                 });
  expect_refused(
      backward(),
      {
          {"backward reads the LSE", [](Problem& p) { p.lse = LseLayout::none; }},
          {"sink_grad is set, but the problem has no sink", [](Problem& p) { p.sink_grad = true; }},
          {"alibi_grad is set, but the problem has no ALiBi",
           [](Problem& p) { p.alibi_grad = true; }},
          {"bias.grad is set, but the problem has no bias", [](Problem& p) { p.bias.grad = true; }},
          {"a boolean bias has no gradient",
           [](Problem& p) {
             p.bias = {.kind = BiasKind::boolean, .dtype = DType::boolean, .grad = true};
           }},
      });
}

TEST(Validate, RefusesLayouts) {
  expect_refused(
      Problem{},
      {
          {"total_q = 5, but the queries are not packed", [](Problem& p) { p.total_q = 5; }},
          {"total_k = 5, but the keys are not packed", [](Problem& p) { p.total_k = 5; }},
          {"pages = 5, but page_size is 0", [](Problem& p) { p.pages = 5; }},
          {"either packed or paged",
           [](Problem& p) {
             p.packed_k = true;
             p.page_size = 4;
           }},
          {"page_size = -1 is too small", [](Problem& p) { p.page_size = -1; }},
          {"align = 0 bytes is not a power of two in 1 .. 256",
           [](Problem& p) { p.alignment = 0; }},
          {"align = 24 bytes", [](Problem& p) { p.alignment = 24; }},
          {"align = 512 bytes", [](Problem& p) { p.alignment = 512; }},
          {"align = -16 bytes", [](Problem& p) { p.alignment = -16; }},
      });
}

TEST(Validate, RefusesStridesOfOutputs) {
  Problem p;
  p.b = 2;
  p.sq = 4;
  p.hq = 2;
  p.d = p.dv = 8;
  expect_refused(
      p,
      {
          {"o_strides = (64, 16, 8, -1): an output can't have a negative stride",
           [](Problem& x) {
             x.o_strides = {64, 16, 8, -1};
           }},
          {"o_strides = (64, 16, 4, 1) make the output overlap itself over the shape [2, 4, 2, 8]",
           [](Problem& x) {
             x.o_strides = {64, 16, 4, 1};
           }},
          {"overlap itself",
           [](Problem& x) {
             x.o_strides = {0, 16, 8, 1};
           }},
          {"q_strides = (9223372036854775807, 16, 8, 1) reach past 2^63 bytes",
           [](Problem& x) {
             x.q_strides = {kMax, 16, 8, 1};
           }},
          {"reach past 2^63",
           [](Problem& x) {
             x.k_strides = {kMin, kMin, kMin, kMin};
           }},
      });
  p.q_strides = {0, -16, 8, 1};  // inputs may repeat and walk back
  p.o_strides = {64, 8, 32, 1};  // any order of dimensions
  EXPECT_TRUE(validate(p).ok()) << validate(p).message();
  p.kind = Kind::backward;  // o is an input there
  p.lse = LseLayout::plain;
  p.o_strides = {0, 0, 0, 1};
  EXPECT_TRUE(validate(p).ok()) << validate(p).message();
}

TEST(Validate, AllowsWhatTheContractDefines) {
  const std::vector<std::function<void(Problem&)>> changes = {
      [](Problem& p) { p.b = 0; },
      [](Problem& p) { p.sq = 0; },
      [](Problem& p) { p.sk = 0; },
      [](Problem& p) { p.dv = 0; },
      [](Problem& p) {
        p.d = 0;
        p.scale = 1;
      },
      [](Problem& p) { p.scale = -2; },
      [](Problem& p) { p.scale = 0; },
      [](Problem& p) { p.mask = {.causal = true, .left = kMax, .right = kMax}; },
      [](Problem& p) { p.d = p.dv = 65536; },
      [](Problem& p) { p.packed_q = true; },
      [](Problem& p) {
        p.packed_q = p.packed_k = p.key_lengths = true;
        p.total_q = p.total_k = 10;
      },
      [](Problem& p) {
        p.page_size = 1;
        p.packed_q = true;
      },
      [](Problem& p) { p.device = Device::cuda; },
      [](Problem& p) { p.alignment = 1; },
      [](Problem& p) { p.alignment = 256; },
      [](Problem& p) { p.softcap = FLT_MIN; },
  };
  for (const auto& change : changes) {
    for (Problem p : {Problem{}, backward()}) {
      change(p);
      EXPECT_TRUE(validate(p).ok()) << print(p) << ": " << validate(p).message();
    }
  }
}

TEST(Validate, DefaultScaleIsOneOverRootD) {
  Problem p;
  p.d = 64;
  EXPECT_EQ(p.effective_scale(), 0.125);
  p.scale = 3;
  EXPECT_EQ(p.effective_scale(), 3);
}

}  // namespace
}  // namespace attune
