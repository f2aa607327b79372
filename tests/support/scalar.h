// Loads and stores one element of any dtype. Written apart from the library, so that a wrong
// conversion there can't hide here.
#pragma once

#include <attune/tensor.hpp>

namespace attune::testing {

[[nodiscard]] double load_scalar(const void* address, DType dtype);

// Rounds to nearest, ties to even; integers and booleans are truncated.
void store_scalar(void* address, DType dtype, double value);

// Largest finite value of a floating dtype.
[[nodiscard]] double largest(DType dtype);

}  // namespace attune::testing
