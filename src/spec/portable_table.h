// The rows of the portable family: which configurations exist, and the tile of each.
#pragma once

#include <attune/spec/portable.h>

#include <attune/tensor.hpp>
#include <string>
#include <vector>

namespace attune {

// In order of preference: the newest architectures first, aligned before unaligned, the smallest
// sufficient head dim, the fewest features. Of rows that differ in the tile alone, the first is the
// fastest, and the next ones are for devices with less shared memory.
[[nodiscard]] std::vector<kernel::PortableSpec> portable_forward_rows(DType dtype);
// `bias` in a row of these means: there may be one, and its gradient may be asked for.
[[nodiscard]] std::vector<kernel::PortableSpec> portable_backward_rows(DType dtype);

// Of all that a row is for but the architecture.
[[nodiscard]] bool same_but_for_tile(const kernel::PortableSpec& a, const kernel::PortableSpec& b);

// "sm80.bf16.d128.aligned.plain.q128k64": all that tells rows apart.
[[nodiscard]] std::string portable_id(const kernel::PortableSpec& spec);

}  // namespace attune
