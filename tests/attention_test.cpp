// The C++ one-call functions: the Problem that they build from views, and the cache of plans.
#include <gtest/gtest.h>

#include <attune/attune.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "api/plan_cache.h"

namespace attune {
namespace {

std::vector<float> numbers(std::size_t count, std::uint32_t seed) {
  std::vector<float> out(count);
  for (float& x : out) {
    seed = seed * 1664525U + 1013904223U;
    x = static_cast<float>(seed >> 8) / 8388608.0F - 1.0F;
  }
  return out;
}

void expect_close(const std::vector<float>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t n = 0; n < got.size(); ++n) {
    ASSERT_NEAR(static_cast<double>(got[n]), want[n], 2e-5) << "element " << n;
  }
}

// What the oracle makes of a Problem text and its tensors.
oracle::Result judge(const std::string& text, const Arguments& arguments) {
  const Expected<Problem> problem = parse(text);
  EXPECT_TRUE(problem.ok()) << problem.status().message();
  Expected<oracle::Result> result = oracle::run(*problem, arguments);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? std::move(result).value() : oracle::Result{};
}

// Memory for 2 sequences (or 10 tokens, or 6 pages of 2 keys) of 4 heads over 2.
struct Tensors {
  std::vector<float> q_data = numbers(10UL * 4 * 8, 1);
  std::vector<float> k_data = numbers(12UL * 2 * 8, 2);
  std::vector<float> v_data = numbers(12UL * 2 * 6, 3);
  std::vector<float> o_data = std::vector<float>(10UL * 4 * 6, NAN);
  std::vector<float> lse_data = std::vector<float>(10UL * 4, NAN);
  std::vector<std::int32_t> cu_q = {0, 3, 10};
  std::vector<std::int32_t> cu_k = {0, 7, 11};
  std::vector<std::int32_t> pages = {5, 0, 3, 1, 2, 4, -1, -1};
  Arguments args;

  void view_q(std::int64_t b, std::int64_t s) {
    args.q = TensorView::contiguous(q_data.data(), DType::f32, {b, s, 4, 8});
    args.o = TensorView::contiguous(o_data.data(), DType::f32, {b, s, 4, 6});
  }
  void view_k(std::int64_t b, std::int64_t s) {
    args.k = TensorView::contiguous(k_data.data(), DType::f32, {b, s, 2, 8});
    args.v = TensorView::contiguous(v_data.data(), DType::f32, {b, s, 2, 6});
  }
  Status run(const AttentionOptions& options) {
    return attention(args.q, args.k, args.v, args.o, options);
  }
};

TEST(Attention, Dense) {
  Tensors t;
  t.view_q(2, 5);
  t.view_k(2, 6);
  t.args.lse = TensorView::contiguous(t.lse_data.data(), DType::f32, {2, 4, 5});
  const Status status =
      t.run({.mask = {.causal = true, .left = 3}, .scale = 0.5, .lse = t.args.lse});
  ASSERT_TRUE(status.ok()) << status.message();
  const oracle::Result want = judge(
      "forward b=2 hq=4 hkv=2 sq=5 sk=6 d=8 dv=6 scale=0.5 mask=causal-bottom-right window=3,-1 "
      "lse",
      t.args);
  expect_close(t.o_data, want.o);
  expect_close(t.lse_data, want.lse);
}

TEST(Attention, AnyStrides) {
  Tensors t;
  t.view_q(2, 5);
  t.view_k(2, 6);
  // q as [B, H, S, D] in memory, k backwards, o with its heads apart.
  t.args.q.strides = {160, 8, 40, 1};
  t.args.k.data = t.k_data.data() + t.k_data.size() - 1;
  for (std::int64_t& stride : t.args.k.strides) stride = -stride;
  t.args.o.strides = {120, 6, 30, 1};
  const Status status = t.run({});
  ASSERT_TRUE(status.ok()) << status.message();
  const oracle::Result want = judge(
      "forward b=2 hq=4 hkv=2 sq=5 sk=6 d=8 dv=6 q_strides=160,8,40,1 "
      "k_strides=-96,-16,-8,-1 o_strides=120,6,30,1",
      t.args);
  for (std::size_t b = 0; b < 2; ++b) {
    for (std::size_t i = 0; i < 5; ++i) {
      for (std::size_t h = 0; h < 4; ++h) {
        for (std::size_t x = 0; x < 6; ++x) {
          ASSERT_NEAR(t.o_data[b * 120 + i * 6 + h * 30 + x], want.o[((b * 5 + i) * 4 + h) * 6 + x],
                      2e-5);
        }
      }
    }
  }
}

TEST(Attention, BiasOfAnyBroadcast) {
  Tensors t;
  t.view_q(2, 5);
  t.view_k(2, 6);
  const std::vector<float> bias = numbers(4UL * 6, 11);
  t.args.bias = TensorView::contiguous(bias.data(), DType::f32, {1, 4, 1, 6});
  ASSERT_TRUE(t.run({.bias = t.args.bias}).ok());
  expect_close(t.o_data,
               judge("forward b=2 hq=4 hkv=2 sq=5 sk=6 d=8 dv=6 bias=f32:1h1k", t.args).o);
  const std::vector<std::uint8_t> mask = {1, 0, 1, 1, 0, 1};
  t.args.bias = TensorView::contiguous(mask.data(), DType::boolean, {1, 1, 1, 6});
  ASSERT_TRUE(t.run({.bias = t.args.bias}).ok());
  expect_close(t.o_data,
               judge("forward b=2 hq=4 hkv=2 sq=5 sk=6 d=8 dv=6 bias=bool:111k", t.args).o);
}

TEST(Attention, Packed) {
  Tensors t;
  t.view_q(1, 10);
  t.view_k(1, 12);
  t.args.cu_seqlens_q = TensorView::contiguous(t.cu_q.data(), DType::i32, {3});
  t.args.cu_seqlens_k = TensorView::contiguous(t.cu_k.data(), DType::i32, {3});
  const AttentionOptions options{.mask = {.causal = true},
                                 .cu_seqlens_q = t.args.cu_seqlens_q,
                                 .cu_seqlens_k = t.args.cu_seqlens_k,
                                 .max_seqlen_q = 7,
                                 .max_seqlen_k = 8};
  const Status status = t.run(options);
  ASSERT_TRUE(status.ok()) << status.message();
  expect_close(t.o_data, judge("forward b=2 hq=4 hkv=2 sq=7 sk=8 d=8 dv=6 packed=qk total_q=10 "
                               "total_k=12 mask=causal-bottom-right",
                               t.args)
                             .o);
}

TEST(Attention, PagedWithColumnsToSpare) {
  Tensors t;
  t.view_q(2, 5);
  t.view_k(6, 2);  // pages
  // Rows of 4 columns, of which 5 keys reach the first 3.
  std::vector<std::int32_t> table = {5, 0, 3, -1, 1, 2, 4, -1};
  const TensorView wide = TensorView::contiguous(table.data(), DType::i32, {2, 4});
  const Status status = t.run({.max_seqlen_k = 5, .page_table = wide});
  ASSERT_TRUE(status.ok()) << status.message();
  t.args.page_table = wide;
  t.args.page_table.shape[1] = 3;
  expect_close(t.o_data,
               judge("forward b=2 hq=4 hkv=2 sq=5 sk=5 d=8 dv=6 page_size=2 pages=6", t.args).o);
  // Without max_seqlen_k all columns count, and the -1s are read.
  const Status all = t.run({.page_table = wide});
  EXPECT_EQ(all.code(), Code::invalid_argument);
  EXPECT_NE(all.message().find("page_table[0, 3] = -1 is out of range"), std::string::npos)
      << all.message();
}

TEST(Attention, DropsByTheStreamThatIsAskedFor) {
  for (const auto& [stream, word] :
       {std::pair{DropoutStream::curand, ""}, {DropoutStream::fa2, " dropout_stream=fa2"}}) {
    Tensors t;
    t.view_q(2, 5);
    t.view_k(2, 6);
    t.args.dropout_seed = 7;
    t.args.dropout_offset = 9;
    const Status status = t.run({.dropout = 0.5,
                                 .dropout_stream = stream,
                                 .dropout_seed = t.args.dropout_seed,
                                 .dropout_offset = t.args.dropout_offset});
    ASSERT_TRUE(status.ok()) << status.message();
    expect_close(
        t.o_data,
        judge(std::string("forward b=2 hq=4 hkv=2 sq=5 sk=6 d=8 dv=6 dropout=0.5") + word, t.args)
            .o);
  }
}

TEST(Attention, BackwardGivesTheGradientsThatHaveAPlace) {
  Tensors t;
  t.view_q(2, 5);
  t.view_k(2, 6);
  t.args.lse = TensorView::contiguous(t.lse_data.data(), DType::f32, {2, 4, 5});
  const std::vector<float> bias = numbers(5UL * 6, 13);
  t.args.bias = TensorView::contiguous(bias.data(), DType::f32, {1, 1, 5, 6});
  const AttentionOptions options{.softcap = 3, .bias = t.args.bias, .lse = t.args.lse};
  ASSERT_TRUE(t.run(options).ok());

  const std::vector<float> grad_o = numbers(t.o_data.size(), 17);
  std::vector<float> grad_q(t.q_data.size(), NAN);
  std::vector<float> grad_k(2UL * 6 * 2 * 8, NAN);
  std::vector<float> grad_v(2UL * 6 * 2 * 6, NAN);
  std::vector<float> grad_bias(bias.size(), NAN);
  t.args.grad_o = TensorView::contiguous(grad_o.data(), DType::f32, {2, 5, 4, 6});
  t.args.grad_q = TensorView::contiguous(grad_q.data(), DType::f32, {2, 5, 4, 8});
  t.args.grad_k = TensorView::contiguous(grad_k.data(), DType::f32, {2, 6, 2, 8});
  t.args.grad_v = TensorView::contiguous(grad_v.data(), DType::f32, {2, 6, 2, 6});
  t.args.grad_bias = TensorView::contiguous(grad_bias.data(), DType::f32, {1, 1, 5, 6});
  const Status status = attention_backward({.q = t.args.q,
                                            .k = t.args.k,
                                            .v = t.args.v,
                                            .o = t.args.o,
                                            .grad_o = t.args.grad_o,
                                            .grad_q = t.args.grad_q,
                                            .grad_k = t.args.grad_k,
                                            .grad_v = t.args.grad_v,
                                            .grad_bias = t.args.grad_bias},
                                           options);
  ASSERT_TRUE(status.ok()) << status.message();
  const oracle::Result want =
      judge("backward b=2 hq=4 hkv=2 sq=5 sk=6 d=8 dv=6 softcap=3 bias=f32:11qk bias_grad", t.args);
  expect_close(grad_q, want.grad_q);
  expect_close(grad_k, want.grad_k);
  expect_close(grad_v, want.grad_v);
  expect_close(grad_bias, want.grad_bias);
}

TEST(Attention, SaysWhatContradictsItself) {
  struct Case {
    const char* says;
    std::function<void(Tensors&, AttentionOptions&)> change;
  };
  const std::vector<Case> cases = {
      {"q is missing", [](Tensors& t, AttentionOptions&) { t.args.q = {}; }},
      {"k has 3 dimensions; it takes 4, [B, S, H, D]",
       [](Tensors& t, AttentionOptions&) { t.args.k.rank = 3; }},
      {"k has shape [2, 6, 2, 7], but the problem expects [B, Sk, Hkv, D] = [2, 6, 2, 8]",
       [](Tensors& t, AttentionOptions&) {
         t.args.k = TensorView::contiguous(t.k_data.data(), DType::f32, {2, 6, 2, 7});
       }},
      {"v has shape [2, 5, 2, 6]", [](Tensors& t, AttentionOptions&) { t.args.v.shape[1] = 5; }},
      {"hq = 4 is not a multiple of hkv = 3",
       [](Tensors& t, AttentionOptions&) { t.args.k.shape[2] = t.args.v.shape[2] = 3; }},
      {"dtype = f64 is not supported",
       [](Tensors& t, AttentionOptions&) { t.args.q.dtype = DType::f64; }},
      {"k has dtype f16, but the problem expects f32",
       [](Tensors& t, AttentionOptions&) { t.args.k.dtype = DType::f16; }},
      {"the output o overlaps the input q",
       [](Tensors& t, AttentionOptions&) { t.args.o.data = t.args.q.data; }},
      {"o_strides = (120, 24, 6, -1): an output can't have a negative stride",
       [](Tensors& t, AttentionOptions&) { t.args.o.strides[3] = -1; }},
      {"dropout = 1 is not", [](Tensors&, AttentionOptions& o) { o.dropout = 1; }},
      {"dropout = 0.999 is out of reach of dropout_stream = fa2",
       [](Tensors&, AttentionOptions& o) {
         o.dropout = 0.999;
         o.dropout_stream = DropoutStream::fa2;
       }},
      {"dropout_stream = 2 is not one of its named values",
       [](Tensors&, AttentionOptions& o) {
         o.dropout = 0.5;
         o.dropout_stream = static_cast<DropoutStream>(2);
       }},
      {"scale = nan is not", [](Tensors&, AttentionOptions& o) { o.scale = std::nan(""); }},
      {"bias has 2 dimensions; it takes 4",
       [](Tensors& t, AttentionOptions& o) {
         o.bias = TensorView::contiguous(t.q_data.data(), DType::f32, {5, 6});
       }},
      {"bias has shape [2, 4, 5, 5]",
       [](Tensors& t, AttentionOptions& o) {
         o.bias = TensorView::contiguous(t.q_data.data(), DType::f32, {2, 4, 5, 5});
       }},
      {"alibi_slopes has 3 dimensions",
       [](Tensors& t, AttentionOptions& o) {
         o.alibi_slopes = TensorView::contiguous(t.q_data.data(), DType::f32, {2, 4, 1});
       }},
      {"max_seqlen_q is missing",
       [](Tensors& t, AttentionOptions& o) {
         o.cu_seqlens_q = TensorView::contiguous(t.cu_q.data(), DType::i32, {3});
       }},
      {"max_seqlen_k is missing",
       [](Tensors& t, AttentionOptions& o) {
         o.cu_seqlens_k = TensorView::contiguous(t.cu_k.data(), DType::i32, {3});
       }},
      {"cu_seqlens_q is i32[0]; it takes i32[B + 1]",
       [](Tensors& t, AttentionOptions& o) {
         o.cu_seqlens_q = TensorView::contiguous(t.cu_q.data(), DType::i32, {0});
         o.max_seqlen_q = 5;
       }},
      {"max_seqlen_k = 9, but k has Sk = 6",
       [](Tensors&, AttentionOptions& o) { o.max_seqlen_k = 9; }},
      {"page_table is i32[3]; it takes i32[B, columns]",
       [](Tensors& t, AttentionOptions& o) {
         o.page_table = TensorView::contiguous(t.pages.data(), DType::i32, {3});
       }},
      {"threads = -1", [](Tensors&, AttentionOptions& o) { o.threads = -1; }},
      {"cuda", [](Tensors&, AttentionOptions& o) { o.device = Device::cuda; }},
  };
  for (const Case& c : cases) {
    Tensors t;
    t.view_q(2, 5);
    t.view_k(2, 6);
    AttentionOptions options;
    c.change(t, options);
    const Status status = t.run(options);
    EXPECT_FALSE(status.ok()) << c.says;
    EXPECT_NE(status.message().find(c.says), std::string::npos)
        << "says:  " << status.message() << "\nwants: " << c.says;
    for (const float x : t.o_data) ASSERT_TRUE(std::isnan(x)) << c.says;
  }
  EXPECT_EQ(attention_backward({}, {}).code(), Code::invalid_argument);
}

TEST(Attention, SaysWhichProblemItSolves) {
  Tensors t;
  t.view_q(2, 5);
  t.view_k(2, 6);
  AttentionOptions options;
  options.mask = {.causal = true};
  const auto text = [&](const Expected<Problem>& problem) {
    return problem.ok() ? print(*problem) : problem.status().message();
  };
  const std::string shape = "dtype=f32 b=2 hq=4 hkv=2 sq=5 sk=6 d=8 dv=6";
  EXPECT_EQ(text(problem_of(t.args.q, t.args.k, t.args.v, {}, options)),
            "forward " + shape + " mask=causal-bottom-right");
  options.dropout_stream = DropoutStream::fa2;  // of a program that evaluates
  EXPECT_EQ(text(problem_of(t.args.q, t.args.k, t.args.v, {}, options)),
            "forward " + shape + " mask=causal-bottom-right");
  options.dropout = 0.5;
  EXPECT_EQ(text(problem_of(t.args.q, t.args.k, t.args.v, {}, options)),
            "forward " + shape + " mask=causal-bottom-right dropout=0.5 dropout_stream=fa2");
  options.dropout = 0;
  const std::vector<float> sink = numbers(4, 5);
  options.sink = TensorView::contiguous(sink.data(), DType::f32, {4});
  EXPECT_EQ(text(problem_of(t.args.q, t.args.k, t.args.v, t.args.o, options,
                            WantedGradients{.lse = true, .sink = true})),
            "backward " + shape + " mask=causal-bottom-right sink sink_grad lse lse_grad");
  EXPECT_EQ(text(problem_of(t.args.q, {}, t.args.v, {})), "k is missing");
}

TEST(Attention, ComputesInTheCallersWorkspace) {
  Tensors t;
  t.view_q(2, 5);
  t.view_k(2, 6);
  ASSERT_TRUE(t.run({}).ok());
  const std::vector<float> want = t.o_data;
  t.o_data.assign(want.size(), NAN);

  std::vector<std::byte> memory;
  int calls = 0;
  AttentionOptions options;
  options.allocate_workspace = [&](std::size_t bytes) -> void* {
    ++calls;
    memory.assign(bytes, std::byte{0xff});
    return memory.data();
  };
  ASSERT_TRUE(t.run(options).ok());
  EXPECT_EQ(t.o_data, want);
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(memory.empty());

  t.o_data.assign(want.size(), 7);
  options.allocate_workspace = [](std::size_t) -> void* { return nullptr; };
  const Status status = t.run(options);
  EXPECT_EQ(status.code(), Code::out_of_memory);
  EXPECT_NE(status.message().find("allocate_workspace gave no memory for"), std::string::npos);
  EXPECT_EQ(t.o_data, std::vector<float>(want.size(), 7));
}

TEST(PlanCache, KeepsTheLatestPlans) {
  Problem p;
  const auto first = cached_plan(p, 1);
  ASSERT_TRUE(first.ok()) << first.status().message();
  EXPECT_EQ(kept_plan(p, 1), *first);
  EXPECT_EQ(kept_plan(p, 3), nullptr);
  EXPECT_EQ(cached_plan(p, 1)->get(), first->get());
  EXPECT_NE(cached_plan(p, 2)->get(), first->get());  // another thread count, another plan
  for (int n = 0; n < 2 * kCachedPlans; ++n) {
    p.sq = 2 + n;
    ASSERT_TRUE(cached_plan(p, 1).ok());
    // Used again and again, the first one stays.
    ASSERT_EQ(cached_plan(Problem{}, 1)->get(), first->get());
  }
  EXPECT_EQ(cached_plan_count(), kCachedPlans);
  p.sq = 2;  // long gone, and made anew
  EXPECT_TRUE(cached_plan(p, 1).ok());
  Problem refused;
  refused.b = -1;
  EXPECT_EQ(cached_plan(refused, 1).status().code(), Code::invalid_argument);
}

}  // namespace
}  // namespace attune
