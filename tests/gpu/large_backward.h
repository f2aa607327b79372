// A backward pass too large for the oracle, judged where it can be: a few queries or keys see few others,
// and those alone are a small Problem with the same gradients.
#pragma once

#include <attune/oracle.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "launch/memory.h"
#include "tests/gpu/pattern.h"
#include "tests/support/judge.h"
#include "tests/support/tensor_memory.h"

namespace attune::testing {

// [begin, end)
struct Span {
  std::int64_t begin = 0, end = 0;
  [[nodiscard]] std::int64_t size() const { return end - begin; }
};

class LargeBackward {
 public:
  // A Problem of q, k, v, a mask and perhaps an additive bias with a gradient, for a GPU. q and grad_o
  // hold `queries`, all else `others`; both have to outlive this.
  LargeBackward(const Problem& problem, const Pattern& queries, const Pattern& others)
      : p_(problem), queries_(queries), others_(others) {}

  // Fills the tensors and runs forward and backward. out_of_memory where the GPU is too small.
  [[nodiscard]] Status run();

  // dQ, and the bias's gradient, of queries of a key head's group. Empty when all is well.
  [[nodiscard]] std::string judge_queries(std::int64_t b, std::int64_t h, Span queries) const;
  // dK and dV of keys, and dQ of all queries that attend to any of them: few, by the mask.
  [[nodiscard]] std::string judge_keys(std::int64_t b, std::int64_t h, Span keys) const;
  // dK and dV of keys when all queries attend to all, and row i of q and grad_o is row i mod `period`,
  // a divisor of sq. Precondition: float32, one head, no bias.
  [[nodiscard]] std::string judge_repeated(std::int64_t period, Span keys) const;

 private:
  // What is judged, as a Problem of its own, with the o and LSE that the kernels were given.
  struct Part {
    Problem problem;
    TensorMemory q, k, v, o, lse, grad_o, bias;
    [[nodiscard]] Arguments arguments() const;
  };

  [[nodiscard]] const Pattern& pattern_of(std::string_view name) const;
  [[nodiscard]] std::int64_t diagonal(std::int64_t query) const;
  [[nodiscard]] Span keys_of(Span queries) const;
  [[nodiscard]] Span queries_of(Span keys) const;
  [[nodiscard]] Part part(std::int64_t b, std::int64_t h, Span queries, Span keys) const;
  // Rows [1, span, heads, width] of a tensor [B, tokens, all heads, width], from the device.
  [[nodiscard]] TensorMemory rows(std::string_view name, std::int64_t b, Span span,
                                  std::int64_t head, std::int64_t heads) const;
  // The same of an input, from its pattern.
  [[nodiscard]] TensorMemory drawn(std::string_view name, std::int64_t b, Span span,
                                   std::int64_t head, std::int64_t heads) const;
  [[nodiscard]] std::string judge(std::int64_t b, std::int64_t h, Span queries, Span keys) const;

  Problem p_;
  const Pattern& queries_;
  const Pattern& others_;
  std::map<std::string_view, TensorView> views_;
  std::map<std::string_view, cuda::DeviceBuffer> memory_;
};

}  // namespace attune::testing
