// What the kernels of both directions are told about a Problem and its tensors.
#pragma once

#include <attune/params.h>
#include <attune/spec/portable.h>

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cstdint>

#include "host/device_facts.h"

namespace attune {

// No output has an element.
[[nodiscard]] bool writes_nothing(const Problem& problem);

// Tokens after the last sequence's end belong to no sequence, and gradients that sum over sequences
// have elements without any: the kernels then see one sequence, which is empty.
[[nodiscard]] bool no_sequence(const Problem& problem);

// All that the Problem decides, but for tiles and slices.
[[nodiscard]] kernel::ForwardParams params_of(const Problem& problem);

// Adds what the tensors decide. Allocates nothing. Precondition: check_arguments(problem, arguments) is ok.
void take_tensors(const Problem& problem, const Arguments& arguments, kernel::ForwardParams& p);

[[nodiscard]] kernel::Operand operand(const TensorView& view, bool packed);
// A tensor in the LSE's layout.
[[nodiscard]] kernel::LseOutput lse_of(const TensorView& view, const kernel::LseOutput& layout);
[[nodiscard]] int element_of(DType dtype);  // as kernel::Element

// How many things of so many bytes fill half of the L2 cache, where they stay while all that reads
// them passes; at least one.
[[nodiscard]] std::int64_t fill_half_the_cache(std::int64_t bytes, const DeviceFacts& device);

}  // namespace attune
