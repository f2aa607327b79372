// Forward passes past 2^31 elements, judged on sampled rows.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launch/device_tensor.h"
#include "tests/gpu/pattern.h"
#include "tests/support/flags.h"
#include "tests/support/judge.h"
#include "tests/support/on_gpu.h"
#include "tests/support/random.h"
#include "tests/support/tensor_memory.h"

namespace attune::testing {
namespace {

constexpr std::int64_t kTwoTo31 = std::int64_t{1} << 31;

class Large : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!no_gpu().empty()) GTEST_SKIP() << no_gpu();
  }

  // A contiguous tensor on the GPU. Skips the test where there is too little memory.
  TensorView make(DType dtype, std::initializer_list<std::int64_t> shape, const Pattern* pattern) {
    TensorView view = TensorView::contiguous(nullptr, dtype, shape);
    const auto bytes = static_cast<std::size_t>(view.elements()) * size_of(dtype);
    Expected<cuda::DeviceBuffer> buffer = cuda::DeviceBuffer::allocate(gpu(), bytes);
    if (!buffer.ok()) {
      too_large_ = buffer.status().message();
      return view;
    }
    const Status status = pattern != nullptr ? pattern->fill(*buffer) : buffer->fill(0xFF);
    EXPECT_TRUE(status.ok()) << status.message();
    view.data = buffer->data();
    buffers_.push_back(std::move(buffer).value());
    return view;
  }

  // Row (b, i, h) of o against the oracle, which sees that query alone.
  void judge_row(const Problem& p, const Pattern& pattern, const cuda::DeviceBuffer& o,
                 std::int64_t b, std::int64_t i, std::int64_t h,
                 const std::function<double(std::int64_t)>& bias = {}) {
    Problem one;
    one.dtype = p.dtype;
    one.sk = p.sk;
    one.d = p.d;
    one.dv = p.dv;
    one.mask = p.mask;
    // Query i of p is query 0 here: the diagonal moves with it.
    one.mask.diagonal = Diagonal::top_left;
    one.mask.offset += i + (p.mask.diagonal == Diagonal::bottom_right ? p.sk - p.sq : 0);
    TensorMemory q(p.dtype, {1, 1, 1, p.d}), k(p.dtype, {1, p.sk, 1, p.d}),
        v(p.dtype, {1, p.sk, 1, p.dv}), got(p.dtype, {1, 1, 1, p.dv}), added;
    const std::int64_t kv_head = h / (p.hq / p.hkv);
    const auto row = [&](TensorMemory& memory, std::int64_t tokens, std::int64_t token,
                         std::int64_t heads, std::int64_t head, std::int64_t width,
                         std::int64_t to) {
      const std::int64_t at = ((b * tokens + token) * heads + head) * width;
      for (std::int64_t d = 0; d < width; ++d) memory.set({0, to, 0, d}, pattern(at + d));
    };
    row(q, p.sq, i, p.hq, h, p.d, 0);
    for (std::int64_t j = 0; j < p.sk; ++j) {
      row(k, p.sk, j, p.hkv, kv_head, p.d, j);
      row(v, p.sk, j, p.hkv, kv_head, p.dv, j);
    }
    Arguments a;
    a.q = q.view();
    a.k = k.view();
    a.v = v.view();
    if (bias) {
      one.bias.kind = BiasKind::additive;
      one.bias.dtype = p.bias.dtype;
      added = TensorMemory(p.bias.dtype, {1, 1, 1, p.sk});
      for (std::int64_t j = 0; j < p.sk; ++j) added.set({0, 0, 0, j}, bias(j));
      a.bias = added.view();
    }
    const auto exact = oracle::run(one, a, oracle::Rounding::exact);
    const auto plain = oracle::run(one, a, oracle::Rounding::plain);
    ASSERT_TRUE(exact.ok() && plain.ok());
    const std::size_t width = static_cast<std::size_t>(p.dv) * size_of(p.dtype);
    const std::size_t at = static_cast<std::size_t>((b * p.sq + i) * p.hq + h) * width;
    ASSERT_TRUE(o.read(got.view().data, width, at).ok());
    EXPECT_EQ(compare_tensor("o", got.view(), &oracle::Result::o, {*exact, *plain}), "")
        << print(p) << " b " << b << " i " << i << " h " << h;
  }

  // Runs p and judges some rows: the first and last ones, and those around where an index passes
  // 2^31.
  void run(Problem p, const Pattern& pattern, const TensorView& bias = {},
           const std::function<double(std::int64_t, std::int64_t)>& bias_at = {}) {
    p.device = Device::cuda;
    Arguments a;
    a.bias = bias;
    a.q = make(p.dtype, {p.b, p.sq, p.hq, p.d}, &pattern);
    a.k = make(p.dtype, {p.b, p.sk, p.hkv, p.d}, &pattern);
    a.v = make(p.dtype, {p.b, p.sk, p.hkv, p.dv}, &pattern);
    a.o = make(p.dtype, {p.b, p.sq, p.hq, p.dv}, nullptr);
    if (!too_large_.empty()) GTEST_SKIP() << too_large_;
    const Expected<Plan> plan = make_plan(p);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const Status status = plan->run(a);
    ASSERT_TRUE(status.ok()) << status.message();
    const Status finished = cuda::synchronize(gpu());
    ASSERT_TRUE(finished.ok()) << finished.message();
    const std::int64_t rows = p.b * p.sq * p.hq;
    std::vector<std::int64_t> sampled = {0, rows - 1, rows / 3};
    for (const std::int64_t width : {p.d, p.dv}) {
      for (const std::int64_t crossing : {kTwoTo31 / width, 2 * kTwoTo31 / width}) {
        for (const std::int64_t row : {crossing - 1, crossing, crossing + 1}) {
          if (row > 0 && row < rows) sampled.push_back(row);
        }
      }
    }
    for (const std::int64_t row : sampled) {
      const std::int64_t h = row % p.hq, i = row / p.hq % p.sq, b = row / p.hq / p.sq;
      judge_row(p, pattern, buffers_.back(), b, i, h,
                bias_at ? [&, i](std::int64_t j) { return bias_at(i, j); }
                        : std::function<double(std::int64_t)>{});
      if (HasFatalFailure()) return;
    }
  }

  std::vector<cuda::DeviceBuffer> buffers_;
  std::string too_large_;
};

Problem sized(DType dtype, std::int64_t b, std::int64_t hq, std::int64_t hkv, std::int64_t sq,
              std::int64_t sk, std::int64_t d) {
  Problem p;
  p.dtype = dtype;
  p.b = b;
  p.hq = hq;
  p.hkv = hkv;
  p.sq = sq;
  p.sk = sk;
  p.d = p.dv = d;
  return p;
}

TEST_F(Large, QueriesPastTwoToTheThirtyOne) {
  const Pattern pattern(DType::bf16);
  // 2.4e9 elements of q and of o.
  run(sized(DType::bf16, 1, 64, 1, 290000, 96, 128), pattern);
}

TEST_F(Large, KeysPastTwoToTheThirtyOne) {
  const Pattern pattern(DType::f16);
  // 2.3e9 elements of k and of v, and rows that long.
  Problem p = sized(DType::f16, 1, 64, 64, 130, 280000, 128);
  p.mask.causal = true;
  run(p, pattern);
}

TEST_F(Large, SequencesPastTwoToTheThirtyOne) {
  const Pattern pattern(DType::bf16);
  // An odd head dim, so that the rows with strided loads are meant.
  run(sized(DType::bf16, 70000, 8, 4, 60, 40, 65), pattern);
}

TEST_F(Large, BiasPastTwoToTheThirtyOne) {
  const Pattern pattern(DType::bf16);
  Problem p = sized(DType::bf16, 1, 2, 2, 50000, 50000, 64);
  p.bias.kind = BiasKind::additive;
  p.bias.dtype = DType::bf16;
  p.bias.broadcast_h = true;
  const TensorView bias = make(DType::bf16, {1, 1, p.sq, p.sk}, &pattern);
  if (!too_large_.empty()) GTEST_SKIP() << too_large_;
  run(p, pattern, bias, [&](std::int64_t i, std::int64_t j) { return pattern(i * p.sk + j); });
}

// More tiles than one side of a grid has blocks.
TEST_F(Large, TilesPastTwoToTheThirtyOne) {
  if (!flags().huge) GTEST_SKIP() << "takes 9 GB and a minute: --huge";
  const Pattern pattern(DType::f16);
  run(sized(DType::f16, 1024, 2150000000 / 1024, 1, 1, 3, 1), pattern);
}

// Elements that lie 2^31 and more apart.
TEST_F(Large, StridesPastTwoToTheThirtyOne) {
  Problem p = sized(DType::f16, 2, 2, 2, 3, 5, 16);
  p.device = Device::cuda;
  constexpr std::int64_t kStep = (std::int64_t{1} << 30) + 8;
  p.k_strides = {16, kStep, kStep / 2, 1};
  p.v_strides = {kStep / 4, kStep, 64, 1};
  const auto memory = cuda::DeviceBuffer::allocate(gpu(), static_cast<std::size_t>(kStep) * 12);
  if (!memory.ok()) GTEST_SKIP() << memory.status().message();
  ASSERT_TRUE(memory->fill(0xFF).ok());
  // The same numbers, close together on the host.
  Problem near = p;
  near.device = Device::cpu;
  near.k_strides = near.v_strides = {};
  Random random(9);
  const auto filled = [&](const Shape& shape) {
    TensorMemory tensor(p.dtype, shape);
    for_each_index(tensor.view(), [&](const Index& i) { tensor.set(i, random.normal()); });
    return tensor;
  };
  TensorMemory q = filled({2, 3, 2, 16}), k = filled({2, 5, 2, 16}), v = filled({2, 5, 2, 16}),
               o(p.dtype, {2, 3, 2, 16});
  Arguments host;
  host.q = q.view();
  host.k = k.view();
  host.v = v.view();
  host.o = o.view();
  const auto scatter = [&](const TensorMemory& from, const Problem::Strides& strides,
                           std::int64_t shift) {
    TensorView view = from.view();
    view.strides = strides;
    view.data = memory->data() + 2 * shift;
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t s = 0; s < 5; ++s) {
        for (std::int64_t h = 0; h < 2; ++h) {
          const auto* row =
              static_cast<const std::byte*>(from.view().data) + 2 * ((b * 5 + s) * 2 + h) * 16;
          const std::int64_t at = shift + b * strides[0] + s * strides[1] + h * strides[2];
          EXPECT_TRUE(memory->write(row, 32, static_cast<std::size_t>(2 * at)).ok());
        }
      }
    }
    return view;
  };
  const auto copy = cuda::DeviceArguments::copy_of(near, host, gpu());
  ASSERT_TRUE(copy.ok()) << copy.status().message();
  Arguments a = copy->arguments();
  a.k = scatter(k, p.k_strides, 0);
  a.v = scatter(v, p.v_strides, 4096);
  const Expected<Plan> plan = make_plan(p);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const Status status = plan->run(a);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_TRUE(copy->fetch_outputs().ok());
  const auto exact = oracle::run(near, host, oracle::Rounding::exact);
  const auto plain = oracle::run(near, host, oracle::Rounding::plain);
  ASSERT_TRUE(exact.ok() && plain.ok());
  EXPECT_EQ(compare_tensor("o", o.view(), &oracle::Result::o, {*exact, *plain}), "");
}

}  // namespace
}  // namespace attune::testing
