// What the tables of the portable family share: the configurations that a row may be for.
#pragma once

#include <attune/spec/portable.h>

#include <attune/tensor.hpp>
#include <vector>

namespace attune {

struct PortableTile {
  int queries, keys, warps, stages, blocks;
  bool paired = false;
};

// The tiles of a configuration, in order of preference: the first that fits a device's shared memory
// serves it. Without one there is no such row.
using PortableTiles = std::vector<PortableTile> (*)(const kernel::PortableSpec&);

[[nodiscard]] std::vector<kernel::PortableSpec> portable_rows(DType dtype, PortableTiles tiles);

// More than plain attention is compiled in.
[[nodiscard]] constexpr bool is_featured(const kernel::PortableSpec& spec) {
  return spec.bias || spec.dropout || spec.general;
}

// Tensor cores multiply f16 everywhere; bf16, and f32 as split tf32, from sm_80 on.
[[nodiscard]] constexpr bool on_tensor_cores(const kernel::PortableSpec& spec) {
  return spec.element == kernel::Element::f16 || spec.arch >= 80;
}

}  // namespace attune
