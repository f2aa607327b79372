// Tensors: owns the memory of everything that a Problem names, filled from a seed.
#pragma once

#include <attune/arguments.hpp>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/tensor_memory.h"

namespace attune::testing {

// What the inputs look like.
enum class Distribution : std::uint8_t {
  normal,    // N(0, 1)
  outliers,  // N(0, 1) with a few elements 30 to 100 times larger (f16: up to 30 times)
  equal,     // every query alike and every key alike, so that all scores are equal
  large,     // scores 30 times the usual size
  masked,    // whole rows masked out by the bias, sequences without keys
  poison,    // NaN and infinities wherever the contract says that nothing is read
};
[[nodiscard]] std::string_view to_string(Distribution distribution);

class Tensors {
 public:
  // Precondition: the Problem is valid. The same seed gives the same values.
  Tensors(const Problem& problem, Distribution distribution, std::uint64_t seed);
  Tensors(const Tensors&) = delete;
  Tensors& operator=(const Tensors&) = delete;

  [[nodiscard]] const Arguments& arguments() const { return arguments_; }

  // Backward: stores the oracle's o and LSE, rounded to the tensors' dtypes, as a forward pass would
  // have left them.
  void set_forward(const oracle::Result& result);

  // Replaces every element of an input by value(index). Precondition: the Problem has that input.
  void edit(std::string_view name, const std::function<double(const Index&)>& value);

  // One computed tensor and where the oracle has the same.
  struct Output {
    std::string_view name;
    TensorMemory* memory;
    std::vector<double> oracle::Result::*result;
  };
  [[nodiscard]] const std::vector<Output>& outputs() const { return outputs_; }

  // Fills every output with NaN, as it should be before each run.
  void poison_outputs();

  // Empty, or the first tensor that a run damaged: an input, or memory around an output.
  [[nodiscard]] std::string damage() const;

  // True when all outputs are as poison_outputs() left them.
  [[nodiscard]] bool outputs_untouched() const;

  // All outputs' elements as raw bytes.
  [[nodiscard]] std::vector<std::byte> output_bytes() const;

 private:
  struct Named {
    std::string_view name;
    TensorMemory memory;
  };

  TensorMemory& input(std::string_view name, DType dtype, const Shape& shape,
                      const Shape& strides = {});
  TensorMemory& output(std::string_view name, DType dtype, const Shape& shape, const Shape& strides,
                       std::vector<double> oracle::Result::*result);
  void make_lengths();
  void make_pages();
  void make_inputs();
  void make_bias();
  void make_backward();
  void poison_unread();  // poison.cpp, with the next three
  void poison_keys_and_bias();
  void poison_rows(TensorMemory& memory, std::size_t token_axis);
  void poison_rows_of_lse(TensorMemory& memory);

  Problem problem_;
  Distribution distribution_;
  Random random_;
  Edge edge_;
  Arguments arguments_;
  std::deque<Named> inputs_;  // a deque, so that references stay valid
  std::deque<Named> owned_outputs_;
  std::vector<Output> outputs_;

  // Each sequence's own lengths and starts.
  std::vector<std::int64_t> sq_, sk_, q_start_, k_start_;
  TensorMemory *q_ = nullptr, *k_ = nullptr, *v_ = nullptr, *bias_ = nullptr, *table_ = nullptr;
  TensorMemory *o_ = nullptr, *lse_ = nullptr, *grad_o_ = nullptr, *grad_lse_ = nullptr;
};

}  // namespace attune::testing
