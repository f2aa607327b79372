// Compiled kernels of any compiler: what a file says of itself, so that nobody's word is taken for it.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "cubin/target.h"
#include "wrap/kernel.h"

namespace attune::wrap {

struct PtxEntry {
  Target target;
  std::vector<std::uint32_t> parameter_bytes;
};

// One entry of a PTX text. Messages continue a sentence: "has no kernel saxpy; it has ...".
[[nodiscard]] Expected<PtxEntry> read_ptx(std::string_view text, std::string_view entry);

// Which form the bytes are.
[[nodiscard]] Expected<BinaryForm> form_of(std::span<const std::byte> bytes);

// Fills target, form and parameter_bytes from `bytes`, and the symbol where there is only one. A target
// that was declared is held against the file's, and the threads of a block. Errors begin with the path.
[[nodiscard]] Status read_binary(Binary& binary);

}  // namespace attune::wrap
