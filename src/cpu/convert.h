// One float rounded into a tensor of any float dtype, for the few results that the host writes.
#pragma once

#include <attune/tensor.hpp>
#include <cstdint>

namespace attune::cpu {

// Round to nearest even. Precondition: view.dtype is f32, f16 or bf16; offset is in elements.
void store_as(float value, const TensorView& view, std::int64_t offset);

}  // namespace attune::cpu
