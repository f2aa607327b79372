// Random numbers for tensors that nobody gave.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "io/tensor.h"
#include "problem/shapes.h"

namespace attune::cli {

// Standard normal numbers, rounded to `dtype` (f32, f16, bf16, f8e4m3); the same for the same seed.
[[nodiscard]] Expected<Tensor> normal_tensor(std::string name, DType dtype,
                                             std::vector<std::int64_t> shape, std::uint64_t seed);

// A floating-point input of a Problem, in a shape that need not be its own: normal numbers, or for scales,
// which are positive, powers of two of them.
[[nodiscard]] Expected<Tensor> input_tensor(const TensorSpec& spec, std::vector<std::int64_t> shape,
                                            std::uint64_t seed);

// Every input of a Problem: input_tensor() for the floating-point ones, and for the integer ones
// what makes every sequence as long as the Problem allows. Points `arguments` at them. What a
// backward Problem takes from its forward run (o, lse) is left out.
[[nodiscard]] Expected<std::vector<Tensor>> make_inputs(const Problem& problem, std::uint64_t seed,
                                                        Arguments& arguments);

}  // namespace attune::cli
