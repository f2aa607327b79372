// Memory: a workspace that grows with S and not with its square, and element offsets past 2^31.
#include <gtest/gtest.h>

#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/judge.h"
#include "tests/support/scalar.h"
#include "tests/support/tensor_memory.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

Problem plain_problem(Kind kind, DType dtype) {
  Problem p;
  p.kind = kind;
  p.device = Device::cpu;
  p.dtype = dtype;
  p.lse = LseLayout::plain;
  return p;
}

void expect_linear_workspace(Problem p, const KernelSpec& kernel) {
  constexpr std::size_t kSlack = std::size_t{1} << 20;  // what doesn't depend on S
  std::vector<std::size_t> bytes;
  for (std::int64_t s = 1024; s <= 65536; s *= 2) {
    p.sq = p.sk = s;
    const Expected<Plan> plan =
        make_plan(p, {.threads = 4, .kernel = id_of(kernel), .executor = {}});
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    bytes.push_back(plan->workspace_bytes());
    if (bytes.size() > 1) {
      const double allowed = 2.2 * static_cast<double>(bytes[bytes.size() - 2]) + kSlack;
      EXPECT_LE(static_cast<double>(bytes.back()), allowed)
          << id_of(kernel) << " at sq = sk = " << s << ": " << print(p);
    }
  }
  // And over the whole range, so that steps within the slack can't add up.
  EXPECT_LE(static_cast<double>(bytes.back()),
            2.2 * 64 * static_cast<double>(bytes.front()) + kSlack)
      << print(p);
}

TEST(Workspace, GrowsLinearlyWithTheLengths) {
  for (const KernelSpec& kernel : available_kernels()) {
    Problem p = plain_problem(kernel.kind, kernel.dtype);
    expect_linear_workspace(p, kernel);  // one head: keys are split
    p.hq = 16;
    p.hkv = 4;
    p.mask.causal = true;
    p.deterministic = true;
    p.dropout = 0.1;
    p.alibi = PerHead::head;
    p.sink = true;
    expect_linear_workspace(p, kernel);
    if (kernel.kind == Kind::forward) continue;
    p.alibi_grad = p.sink_grad = p.lse_grad = true;
    expect_linear_workspace(p, kernel);
  }
}

// A copy of `from` whose `axis` has a stride that carries its last element past 2^31 elements.
TensorMemory spread(const TensorView& from, std::size_t axis) {
  Shape shape(from.shape.begin(), from.shape.begin() + from.rank);
  Shape strides(shape.size(), 1);
  std::int64_t span = 1;
  for (std::size_t at = shape.size(); at-- > 0;) {
    if (at == axis) continue;
    strides[at] = span;
    span *= shape[at];
  }
  strides[axis] = span;
  if (shape[axis] > 1) strides[axis] += (std::int64_t{1} << 31) / (shape[axis] - 1) + 64;
  return {from.dtype, shape, strides, Edge::back, Backing::sparse};
}

void copy_elements(TensorMemory& to, const TensorView& from) {
  const auto* const source = static_cast<const std::byte*>(from.data);
  for_each_index(from, [&](const Index& i) {
    std::int64_t offset = 0;
    for (std::size_t axis = 0; axis < static_cast<std::size_t>(from.rank); ++axis) {
      offset += i[axis] * from.strides[axis];
    }
    to.set(i, load_scalar(source + offset * static_cast<std::int64_t>(size_of(from.dtype)),
                          from.dtype));
  });
}

Problem::Strides strides_of(const TensorMemory& memory) { return memory.view().strides; }

// The same values as in `tensors`, spread over more than 2^31 elements along one axis, must give
// what the oracle says about the dense ones.
void expect_right_when_spread(const Problem& dense, std::size_t axis) {
  Tensors tensors(dense, Distribution::normal, 3);
  const Expected<Reference> reference = make_reference(dense, tensors);
  ASSERT_TRUE(reference.ok()) << reference.status().message();

  const Arguments& from = tensors.arguments();
  Arguments to = from;
  Problem p = dense;
  std::vector<TensorMemory> memories;
  memories.reserve(8);
  const auto move_input = [&](TensorView Arguments::*view) {
    memories.push_back(spread(from.*view, axis));
    copy_elements(memories.back(), from.*view);
    to.*view = memories.back().view();
    return strides_of(memories.back());
  };
  const auto move_output = [&](TensorView Arguments::*view) {
    memories.push_back(spread(from.*view, axis));
    to.*view = memories.back().view();
    return strides_of(memories.back());
  };
  p.q_strides = move_input(&Arguments::q);
  p.k_strides = move_input(&Arguments::k);
  p.v_strides = move_input(&Arguments::v);
  const bool backward = p.kind == Kind::backward;
  p.o_strides = backward ? move_input(&Arguments::o) : move_output(&Arguments::o);
  if (backward) {
    move_input(&Arguments::grad_o);
    move_output(&Arguments::grad_q);
    move_output(&Arguments::grad_k);
    move_output(&Arguments::grad_v);
  }
  for (const KernelSpec& kernel : available_kernels(p.kind, p.dtype)) {
    SCOPED_TRACE(id_of(kernel) + ", axis " + std::to_string(axis) + ": " + print(p));
    const Expected<Plan> plan =
        make_plan(p, {.threads = 2, .kernel = id_of(kernel), .executor = {}});
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const Status status = plan->run(to);
    ASSERT_TRUE(status.ok()) << status.message();
    if (backward) {
      EXPECT_EQ(compare_tensor("grad_q", to.grad_q, &oracle::Result::grad_q, *reference), "");
      EXPECT_EQ(compare_tensor("grad_k", to.grad_k, &oracle::Result::grad_k, *reference), "");
      EXPECT_EQ(compare_tensor("grad_v", to.grad_v, &oracle::Result::grad_v, *reference), "");
    } else {
      EXPECT_EQ(compare_tensor("o", to.o, &oracle::Result::o, *reference), "");
    }
  }
}

TEST(HugeStrides, ReachPastTwoToTheThirtyOne) {
  for (const Kind kind : {Kind::forward, Kind::backward}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (std::size_t axis = 0; axis < 4; ++axis) {
        Problem p = plain_problem(kind, dtype);
        p.b = 2;
        p.hq = 4;
        p.hkv = 2;
        p.sq = axis == 3 ? 5 : 33;  // the last axis touches a page for every element
        p.sk = axis == 3 ? 7 : 70;
        p.d = axis == 3 ? 9 : 64;
        p.dv = axis == 3 ? 6 : 48;
        expect_right_when_spread(p, axis);
      }
    }
  }
}

}  // namespace
}  // namespace attune::testing
