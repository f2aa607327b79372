// From files to a Problem and its Arguments.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <map>
#include <string>
#include <vector>

#include "cli/options.h"
#include "io/tensor.h"

namespace attune::cli {

// The inputs of one call, with the forward Problem that they describe together with the options.
// The views of `arguments` point into `tensors`.
struct Inputs {
  std::map<std::string, Tensor> tensors;  // by role: "q", "bias", ...
  Problem problem;
  Arguments arguments;
  bool bhsd = false;               // the files' order of dimensions, and so that of the results
  bool rank_three = false;         // q came without a batch dimension; o leaves without one too
  std::vector<std::string> notes;  // what a person should know: casts, tensors left unread
};

// Reads the files and fills in everything but dropout, device and the kind. Shapes are only looked
// at as far as a Problem needs; check() is still to be called.
[[nodiscard]] Expected<Inputs> read_inputs(const AttentionOptions& options);

// A view of a rank-4 tensor in logical order [B, S, H, D], whatever its order in memory.
[[nodiscard]] TensorView logical_view(const Tensor& tensor, bool bhsd);

}  // namespace attune::cli
