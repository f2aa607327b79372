// Conversions between the floating-point dtypes.
#pragma once

#include <attune/status.hpp>
#include <attune/tensor.hpp>

#include "io/tensor.h"

namespace attune {

// The tensor with each value rounded once to `dtype`, to nearest, ties to even; what is too large
// becomes infinity, and in f8e4m3, which has none, 448 of its sign. Signs of zero and NaN payloads
// are kept as far as they fit, so that widening and narrowing again gives the same bits. f32, f16,
// bf16, f8e4m3 and f64 convert into each other; any dtype converts to itself; the rest is refused as
// unsupported.
[[nodiscard]] Expected<Tensor> cast(const Tensor& tensor, DType dtype);

}  // namespace attune
