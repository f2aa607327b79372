// The C ABI: one call, plans, the oracle; structs of other ages; refusals. Results are judged by
// the oracle, which its own tests judge.
#include <attune/attune.h>
#include <gtest/gtest.h>

#include <attune/problem.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <thread>
#include <vector>

namespace {

// Numbers between -1 and 1 that look arbitrary.
std::vector<float> numbers(std::size_t count, std::uint32_t seed) {
  std::vector<float> out(count);
  for (float& x : out) {
    seed = seed * 1664525U + 1013904223U;
    x = static_cast<float>(seed >> 8) / 8388608.0F - 1.0F;
  }
  return out;
}

attune_tensor tensor(const void* data, std::initializer_list<std::int64_t> shape,
                     std::int32_t dtype = ATTUNE_F32) {
  return attune_tensor_contiguous(data, dtype, static_cast<std::int32_t>(shape.size()),
                                  shape.begin());
}

template <typename Struct>
Struct sized() {
  Struct value = {};
  value.struct_size = sizeof(value);
  return value;
}

void expect_close(const std::vector<float>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t n = 0; n < got.size(); ++n) {
    ASSERT_NEAR(static_cast<double>(got[n]), want[n], 2e-5) << "element " << n;
  }
}

void expect_error(attune_status status, attune_status code, const std::string& says) {
  EXPECT_EQ(status, code) << says;
  EXPECT_NE(std::string(attune_last_error()).find(says), std::string::npos)
      << "says:  " << attune_last_error() << "\nwants: " << says;
}

// Causal grouped-query attention, small enough to check by the oracle.
struct Small {
  static constexpr std::int64_t kB = 2, kHq = 4, kHkv = 2, kSq = 5, kSk = 7, kD = 8;
  const char* problem =
      "forward b=2 hq=4 hkv=2 sq=5 sk=7 d=8 mask=causal-bottom-right lse device=cpu";
  std::vector<float> q_data = numbers(2 * 5 * 4 * 8, 1);
  std::vector<float> k_data = numbers(2 * 7 * 2 * 8, 2);
  std::vector<float> v_data = numbers(2 * 7 * 2 * 8, 3);
  std::vector<float> o_data = std::vector<float>(2 * 5 * 4 * 8, NAN);
  std::vector<float> lse_data = std::vector<float>(2 * 4 * 5, NAN);
  attune_tensor q = tensor(q_data.data(), {kB, kSq, kHq, kD});
  attune_tensor k = tensor(k_data.data(), {kB, kSk, kHkv, kD});
  attune_tensor v = tensor(v_data.data(), {kB, kSk, kHkv, kD});
  attune_tensor o = tensor(o_data.data(), {kB, kSq, kHq, kD});
  attune_tensor lse = tensor(lse_data.data(), {kB, kHq, kSq});

  [[nodiscard]] attune_arguments arguments() const {
    auto args = sized<attune_arguments>();
    args.q = q;
    args.k = k;
    args.v = v;
    args.o = o;
    args.lse = lse;
    return args;
  }

  [[nodiscard]] attune_attention_options options() const {
    auto out = sized<attune_attention_options>();
    out.mask = ATTUNE_MASK_CAUSAL_BOTTOM_RIGHT;
    out.lse = lse;
    return out;
  }

  void expect_right() const {
    std::vector<double> want_o(o_data.size());
    std::vector<double> want_lse(lse_data.size());
    auto result = sized<attune_oracle_result>();
    result.o = {want_o.data(), want_o.size()};
    result.lse = {want_lse.data(), want_lse.size()};
    const attune_arguments args = arguments();
    ASSERT_EQ(attune_oracle_run(problem, &args, ATTUNE_ROUNDING_EXACT, &result), ATTUNE_OK)
        << attune_last_error();
    expect_close(o_data, want_o);
    expect_close(lse_data, want_lse);
  }
};

TEST(CApi, AttentionInOneCall) {
  Small s;
  const attune_attention_options options = s.options();
  ASSERT_EQ(attune_attention(&s.q, &s.k, &s.v, &s.o, &options), ATTUNE_OK) << attune_last_error();
  s.expect_right();
}

// Codes of float8 E4M3 and their scales; o is bf16.
TEST(CApi, EighthsAndTheirScales) {
  static_assert(ATTUNE_F8E4M3 == 8);
  std::vector<std::uint8_t> q_data(1 * 2 * 2 * 4), k_data(1 * 3 * 1 * 4), v_data(1 * 3 * 1 * 4);
  std::uint32_t step = 0;
  for (auto* data : {&q_data, &k_data, &v_data}) {
    for (std::uint8_t& x : *data) {
      step += 83;
      x = static_cast<std::uint8_t>(step % 0x50 | (step & 0x80U));
    }
  }
  const std::vector<float> q_scale{0.5F, 2.0F}, k_scale{0.75F}, v_scale{3.0F};
  std::vector<std::uint16_t> o_data(2 * 2 * 4);
  const attune_tensor q = tensor(q_data.data(), {1, 2, 2, 4}, ATTUNE_F8E4M3);
  const attune_tensor k = tensor(k_data.data(), {1, 3, 1, 4}, ATTUNE_F8E4M3);
  const attune_tensor v = tensor(v_data.data(), {1, 3, 1, 4}, ATTUNE_F8E4M3);
  const attune_tensor o = tensor(o_data.data(), {1, 2, 2, 4}, ATTUNE_BF16);
  auto options = sized<attune_attention_options>();
  options.q_scale = tensor(q_scale.data(), {1, 2});
  options.k_scale = tensor(k_scale.data(), {1, 1});
  options.v_scale = tensor(v_scale.data(), {1, 1});
  ASSERT_EQ(attune_attention(&q, &k, &v, &o, &options), ATTUNE_OK) << attune_last_error();

  auto args = sized<attune_arguments>();
  args.q = q;
  args.k = k;
  args.v = v;
  args.q_scale = options.q_scale;
  args.k_scale = options.k_scale;
  args.v_scale = options.v_scale;
  std::vector<double> want(o_data.size());
  auto result = sized<attune_oracle_result>();
  result.o = {want.data(), want.size()};
  const char* problem = "forward dtype=f8e4m3 b=1 hq=2 hkv=1 sq=2 sk=3 d=4 descale";
  ASSERT_EQ(attune_oracle_run(problem, &args, ATTUNE_ROUNDING_EXACT, &result), ATTUNE_OK)
      << attune_last_error();
  for (std::size_t n = 0; n < want.size(); ++n) {
    const std::uint32_t bits = std::uint32_t{o_data[n]} << 16;
    float got = 0;
    std::memcpy(&got, &bits, sizeof got);
    EXPECT_NEAR(static_cast<double>(got), want[n], 0x1p-8 * std::fabs(want[n]) + 1e-6) << n;
  }

  options.v_scale = {};
  expect_error(attune_attention(&q, &k, &v, &o, &options), ATTUNE_INVALID_ARGUMENT,
               "v_scale is missing");
}

TEST(CApi, NoOptionsIsPlainAttention) {
  Small s;
  s.problem = "forward b=2 hq=4 hkv=2 sq=5 sk=7 d=8 lse";
  ASSERT_EQ(attune_attention(&s.q, &s.k, &s.v, &s.o, nullptr), ATTUNE_OK) << attune_last_error();
  const std::vector<float> o = s.o_data;
  auto options = sized<attune_attention_options>();
  options.lse = s.lse;
  ASSERT_EQ(attune_attention(&s.q, &s.k, &s.v, &s.o, &options), ATTUNE_OK) << attune_last_error();
  EXPECT_EQ(o, s.o_data);
  s.expect_right();
}

TEST(CApi, EveryScalarOptionArrives) {
  Small s;
  s.problem =
      "forward b=2 hq=4 hkv=2 sq=5 sk=7 d=8 scale=0.25 softcap=2 diagonal=top-left offset=1 "
      "window=2,1 dropout=0.25 dropout_stream=fa2 lse=padded32 deterministic";
  auto options = sized<attune_attention_options>();
  options.diagonal = ATTUNE_DIAGONAL_TOP_LEFT;
  options.offset = 1;
  options.has_window = 1;
  options.window_left = 2;
  options.window_right = 1;
  options.has_scale = 1;
  options.scale = 0.25;
  options.softcap = 2;
  options.dropout = 0.25;
  options.dropout_seed = 0x123456789abcdef;
  options.dropout_offset = 4;
  options.dropout_stream = ATTUNE_DROPOUT_STREAM_FA2;
  options.lse_layout = ATTUNE_LSE_PADDED32;
  options.deterministic = 1;
  options.device = ATTUNE_DEVICE_CPU;
  options.threads = 1;
  std::vector<float> lse(2UL * 4 * 32);
  options.lse = tensor(lse.data(), {2, 4, 32});
  ASSERT_EQ(attune_attention(&s.q, &s.k, &s.v, &s.o, &options), ATTUNE_OK) << attune_last_error();

  std::vector<double> want(s.o_data.size());
  auto result = sized<attune_oracle_result>();
  result.o = {want.data(), want.size()};
  attune_arguments args = s.arguments();
  args.lse = options.lse;
  args.dropout_seed = options.dropout_seed;
  args.dropout_offset = options.dropout_offset;
  ASSERT_EQ(attune_oracle_run(s.problem, &args, ATTUNE_ROUNDING_EXACT, &result), ATTUNE_OK)
      << attune_last_error();
  expect_close(s.o_data, want);
  EXPECT_EQ(lse[5], INFINITY);  // the padding
}

TEST(CApi, Backward) {
  Small s;
  attune_attention_options options = s.options();
  const std::vector<float> sink_data = numbers(4, 5);
  options.sink = tensor(sink_data.data(), {4});
  ASSERT_EQ(attune_attention(&s.q, &s.k, &s.v, &s.o, &options), ATTUNE_OK) << attune_last_error();

  const std::vector<float> grad_o = numbers(s.o_data.size(), 9);
  std::vector<float> grad_q(s.q_data.size(), NAN);
  std::vector<float> grad_k(s.k_data.size(), NAN);
  std::vector<float> grad_v(s.v_data.size(), NAN);
  std::vector<float> grad_sink(4, NAN);
  auto tensors = sized<attune_backward_tensors>();
  tensors.q = s.q;
  tensors.k = s.k;
  tensors.v = s.v;
  tensors.o = s.o;
  tensors.grad_o = tensor(grad_o.data(), {2, 5, 4, 8});
  tensors.grad_q = tensor(grad_q.data(), {2, 5, 4, 8});
  tensors.grad_k = tensor(grad_k.data(), {2, 7, 2, 8});
  tensors.grad_v = tensor(grad_v.data(), {2, 7, 2, 8});
  tensors.grad_sink = tensor(grad_sink.data(), {4});
  ASSERT_EQ(attune_attention_backward(&tensors, &options), ATTUNE_OK) << attune_last_error();

  attune_arguments args = s.arguments();
  args.sink = options.sink;
  args.grad_o = tensors.grad_o;
  args.grad_q = tensors.grad_q;
  args.grad_k = tensors.grad_k;
  args.grad_v = tensors.grad_v;
  args.grad_sink = tensors.grad_sink;
  std::vector<double> want_q(grad_q.size());
  std::vector<double> want_k(grad_k.size());
  std::vector<double> want_v(grad_v.size());
  std::vector<double> want_sink(grad_sink.size());
  auto result = sized<attune_oracle_result>();
  result.grad_q = {want_q.data(), want_q.size()};
  result.grad_k = {want_k.data(), want_k.size()};
  result.grad_v = {want_v.data(), want_v.size()};
  result.grad_sink = {want_sink.data(), want_sink.size()};
  const char* problem =
      "backward b=2 hq=4 hkv=2 sq=5 sk=7 d=8 mask=causal-bottom-right sink sink_grad";
  ASSERT_EQ(attune_oracle_run(problem, &args, ATTUNE_ROUNDING_EXACT, &result), ATTUNE_OK)
      << attune_last_error();
  expect_close(grad_q, want_q);
  expect_close(grad_k, want_k);
  expect_close(grad_v, want_v);
  expect_close(grad_sink, want_sink);
}

TEST(CApi, PlanFromTextToResult) {
  Small s;
  attune_plan* plan = nullptr;
  ASSERT_EQ(attune_plan_create(s.problem, nullptr, &plan), ATTUNE_OK) << attune_last_error();
  EXPECT_EQ(std::string(attune_plan_kernel(plan)).rfind("fwd.cpu.f32", 0), 0U);
  const auto printed = attune::parse(attune_plan_problem(plan));
  ASSERT_TRUE(printed.ok()) << printed.status().message();
  EXPECT_TRUE(*printed == *attune::parse(s.problem));
  char* text = attune_plan_explain(plan);
  ASSERT_NE(text, nullptr);
  EXPECT_NE(std::string(text).find(attune_plan_kernel(plan)), std::string::npos);
  attune_free(text);

  const attune_arguments args = s.arguments();
  ASSERT_EQ(attune_plan_run(plan, &args, nullptr, 0), ATTUNE_OK) << attune_last_error();
  s.expect_right();

  const std::size_t bytes = attune_plan_workspace_bytes(plan);
  std::vector<std::byte> workspace(bytes + 1);
  const std::vector<float> first = s.o_data;
  std::fill(s.o_data.begin(), s.o_data.end(), NAN);
  ASSERT_EQ(attune_plan_run(plan, &args, workspace.data() + 1, bytes), ATTUNE_OK)
      << attune_last_error();
  EXPECT_EQ(first, s.o_data);
  if (bytes > 0) {
    expect_error(attune_plan_run(plan, &args, workspace.data(), bytes - 1), ATTUNE_INVALID_ARGUMENT,
                 "workspace");
  }
  attune_plan_destroy(plan);
  attune_plan_destroy(nullptr);
}

struct Count {
  int calls = 0;
  int bodies = 0;
};

void run_in_order(void* context, std::int32_t workers, attune_body body, void* body_context) {
  auto* count = static_cast<Count*>(context);
  ++count->calls;
  for (std::int32_t worker = workers; worker-- > 0;) {
    body(body_context, worker);
    ++count->bodies;
  }
}

TEST(CApi, PlanUsesTheCallersThreads) {
  Small s;
  Count count;
  auto options = sized<attune_plan_options>();
  options.threads = 3;
  options.executor = run_in_order;
  options.executor_context = &count;
  attune_plan* plan = nullptr;
  ASSERT_EQ(attune_plan_create(s.problem, &options, &plan), ATTUNE_OK) << attune_last_error();
  const attune_arguments args = s.arguments();
  ASSERT_EQ(attune_plan_run(plan, &args, nullptr, 0), ATTUNE_OK) << attune_last_error();
  attune_plan_destroy(plan);
  EXPECT_GE(count.calls, 1);
  EXPECT_GE(count.bodies, count.calls);
  s.expect_right();
}

TEST(CApi, PlanRefuses) {
  attune_plan* plan = reinterpret_cast<attune_plan*>(&plan);
  expect_error(attune_plan_create("forward hq=3 hkv=2", nullptr, &plan), ATTUNE_INVALID_ARGUMENT,
               "hq = 3 is not a multiple of hkv = 2");
  EXPECT_EQ(plan, nullptr);
  expect_error(attune_plan_create(nullptr, nullptr, &plan), ATTUNE_INVALID_ARGUMENT,
               "problem_text is NULL");
  expect_error(attune_plan_create("forward", nullptr, nullptr), ATTUNE_INVALID_ARGUMENT,
               "out is NULL");
  auto options = sized<attune_plan_options>();
  options.kernel = "fwd.cpu.f32.abacus";
  expect_error(attune_plan_create("forward", &options, &plan), ATTUNE_INVALID_ARGUMENT,
               "fwd.cpu.f32.abacus");
  options.kernel = nullptr;
  options.threads = -1;
  EXPECT_EQ(attune_plan_create("forward", &options, &plan), ATTUNE_INVALID_ARGUMENT);
  options.threads = 0;
  options.struct_size = 0;
  expect_error(attune_plan_create("forward", &options, &plan), ATTUNE_INVALID_ARGUMENT,
               "options.struct_size = 0");
  expect_error(attune_plan_create("backward device=cuda", nullptr, &plan), ATTUNE_UNSUPPORTED,
               "device=cuda");

  const auto args = sized<attune_arguments>();
  expect_error(attune_plan_run(nullptr, &args, nullptr, 0), ATTUNE_INVALID_ARGUMENT,
               "plan is NULL");
  ASSERT_EQ(attune_plan_create("forward", nullptr, &plan), ATTUNE_OK) << attune_last_error();
  expect_error(attune_plan_run(plan, nullptr, nullptr, 0), ATTUNE_INVALID_ARGUMENT,
               "arguments is NULL");
  expect_error(attune_plan_run(plan, &args, nullptr, 0), ATTUNE_INVALID_ARGUMENT, "q is missing");
  attune_plan_destroy(plan);

  EXPECT_EQ(attune_plan_workspace_bytes(nullptr), 0U);
  EXPECT_STREQ(attune_plan_kernel(nullptr), "");
  EXPECT_STREQ(attune_plan_problem(nullptr), "");
  EXPECT_EQ(attune_plan_explain(nullptr), nullptr);
  attune_free(nullptr);
}

TEST(CApi, ExplainsProblemsThatNoKernelServes) {
  char* text = nullptr;
  ASSERT_EQ(attune_explain("backward device=cuda", nullptr, &text), ATTUNE_OK)
      << attune_last_error();
  ASSERT_NE(text, nullptr);
  EXPECT_NE(std::string(text).find("no kernel serves this problem"), std::string::npos) << text;
  attune_free(text);
  expect_error(attune_explain("sideways", nullptr, &text), ATTUNE_INVALID_ARGUMENT, "sideways");
  EXPECT_EQ(text, nullptr);
}

TEST(CApi, AttentionRefuses) {
  Small s;
  attune_attention_options options = s.options();
  expect_error(attune_attention(nullptr, &s.k, &s.v, &s.o, &options), ATTUNE_INVALID_ARGUMENT,
               "q is NULL");
  expect_error(attune_attention(&s.q, &s.k, &s.v, nullptr, &options), ATTUNE_INVALID_ARGUMENT,
               "o is NULL");
  options.mask = 3;
  expect_error(attune_attention(&s.q, &s.k, &s.v, &s.o, &options), ATTUNE_INVALID_ARGUMENT,
               "options.mask = 3 is none of ATTUNE_MASK_...");
  options = s.options();
  options.device = -1;
  expect_error(attune_attention(&s.q, &s.k, &s.v, &s.o, &options), ATTUNE_INVALID_ARGUMENT,
               "options.device = -1");
  options = s.options();
  options.dropout_stream = 2;
  expect_error(attune_attention(&s.q, &s.k, &s.v, &s.o, &options), ATTUNE_INVALID_ARGUMENT,
               "options.dropout_stream = 2 is none of ATTUNE_DROPOUT_STREAM_...");
  options = s.options();
  attune_tensor q = s.q;
  q.dtype = 256;  // 256 cut to a byte would be f32
  expect_error(attune_attention(&q, &s.k, &s.v, &s.o, &options), ATTUNE_INVALID_ARGUMENT,
               "unknown dtype");
  q = s.q;
  q.rank = 1 << 30;
  expect_error(attune_attention(&q, &s.k, &s.v, &s.o, &options), ATTUNE_INVALID_ARGUMENT,
               "q has 1073741824 dimensions");
  expect_error(attune_attention_backward(nullptr, &options), ATTUNE_INVALID_ARGUMENT,
               "tensors is NULL");
  const auto tensors = sized<attune_backward_tensors>();
  expect_error(attune_attention_backward(&tensors, nullptr), ATTUNE_INVALID_ARGUMENT,
               "lse is missing");
  // Nothing was written.
  for (const float x : s.o_data) ASSERT_TRUE(std::isnan(x));
}

TEST(CApi, TakesOlderAndNewerStructs) {
  Small s;
  // An older program: its struct ends before the mask, and what follows is not ours to read.
  attune_attention_options old = s.options();
  old.struct_size = offsetof(attune_attention_options, mask);
  ASSERT_EQ(attune_attention(&s.q, &s.k, &s.v, &s.o, &old), ATTUNE_OK) << attune_last_error();
  EXPECT_TRUE(std::isnan(s.lse_data[0]));  // its lse was beyond the end
  // One from before dropout's stream had a name: what lies behind its struct names none.
  old = s.options();
  old.struct_size = offsetof(attune_attention_options, dropout_stream);
  old.dropout = 0.5;
  old.dropout_stream = -7;
  s.problem =
      "forward b=2 hq=4 hkv=2 sq=5 sk=7 d=8 mask=causal-bottom-right dropout=0.5 lse device=cpu";
  ASSERT_EQ(attune_attention(&s.q, &s.k, &s.v, &s.o, &old), ATTUNE_OK) << attune_last_error();
  s.expect_right();
  s.problem = Small{}.problem;
  // A newer one: more fields than we know.
  struct Newer {
    attune_attention_options options;
    char more[64];
  };
  Newer newer = {};
  std::memset(newer.more, 0x55, sizeof(newer.more));
  newer.options = s.options();
  newer.options.struct_size = sizeof(newer);
  ASSERT_EQ(attune_attention(&s.q, &s.k, &s.v, &s.o, &newer.options), ATTUNE_OK)
      << attune_last_error();
  s.expect_right();
}

TEST(CApi, OracleRefusesRoomOfTheWrongSize) {
  Small s;
  const attune_arguments args = s.arguments();
  std::vector<double> o(s.o_data.size(), -7.0);
  auto result = sized<attune_oracle_result>();
  result.o = {o.data(), o.size()};
  double few = 0;
  result.lse = {&few, 1};
  expect_error(attune_oracle_run(s.problem, &args, ATTUNE_ROUNDING_EXACT, &result),
               ATTUNE_INVALID_ARGUMENT, "result.lse has room for 1 numbers, but there are 40");
  EXPECT_EQ(o[0], -7.0);  // all or nothing
  expect_error(attune_oracle_run(s.problem, &args, 2, &result), ATTUNE_INVALID_ARGUMENT,
               "rounding = 2");
  expect_error(attune_oracle_run(s.problem, &args, ATTUNE_ROUNDING_EXACT, nullptr),
               ATTUNE_INVALID_ARGUMENT, "result is NULL");
  result.lse = {};
  ASSERT_EQ(attune_oracle_run(s.problem, &args, ATTUNE_ROUNDING_PLAIN, &result), ATTUNE_OK)
      << attune_last_error();
  EXPECT_NE(o[0], -7.0);
}

TEST(CApi, LastErrorBelongsToItsThread) {
  attune_plan* plan = nullptr;
  EXPECT_EQ(attune_plan_create("here", nullptr, &plan), ATTUNE_INVALID_ARGUMENT);
  std::string before = "not empty";
  std::string after;
  std::thread([&] {
    before = attune_last_error();
    attune_plan* other = nullptr;
    (void)attune_plan_create("there", nullptr, &other);
    after = attune_last_error();
  }).join();
  EXPECT_EQ(before, "");
  EXPECT_NE(after.find("there"), std::string::npos);
  EXPECT_NE(std::string(attune_last_error()).find("here"), std::string::npos);
  EXPECT_EQ(std::string(attune_last_error()).find("there"), std::string::npos);
}

TEST(CApi, ContiguousTensors) {
  float x = 0;
  const std::int64_t shape[] = {2, 3, 4};
  const attune_tensor t = attune_tensor_contiguous(&x, ATTUNE_BF16, 3, shape);
  EXPECT_EQ(t.data, &x);
  EXPECT_EQ(t.dtype, ATTUNE_BF16);
  EXPECT_EQ(t.rank, 3);
  EXPECT_EQ(t.strides[0], 12);
  EXPECT_EQ(t.strides[1], 4);
  EXPECT_EQ(t.strides[2], 1);
  EXPECT_EQ(t.shape[3], 0);
  EXPECT_EQ(attune_tensor_contiguous(&x, ATTUNE_F32, 5, shape).data, nullptr);
  EXPECT_EQ(attune_tensor_contiguous(&x, ATTUNE_F32, -1, shape).data, nullptr);
  EXPECT_EQ(attune_tensor_contiguous(&x, ATTUNE_F32, 1, nullptr).data, nullptr);
  EXPECT_NE(std::string(attune_version()), "");
}

}  // namespace
