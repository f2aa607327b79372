// KernelSpec -> the text of a CUDA translation unit with one kernel in it.
#pragma once

#include <string>
#include <string_view>

#include "spec/kernel_spec.h"

namespace attune {

// The kernel's name in every unit: one kernel a cubin, so that nothing is mangled or searched.
inline constexpr std::string_view kEntryName = "attune_kernel";

// A few lines: includes the kernel's header and instantiates it for the spec. Precondition: the spec
// is not of family cpu.
[[nodiscard]] std::string source_for(const KernelSpec& spec);

// How a block of the kernel is launched. The same precondition.
struct BlockShape {
  int threads = 0;
  int blocks_an_sm = 0;  // that the compiler was told to leave registers for
  int shared_bytes = 0;  // dynamic
};
[[nodiscard]] BlockShape block_shape(const KernelSpec& spec);

}  // namespace attune
