// KernelSpec -> the text of a CUDA translation unit with its kernels.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "spec/kernel_spec.h"

namespace attune {

// The name of every unit's main kernel; further ones append an underscore and a word. So nothing is
// mangled or searched.
inline constexpr std::string_view kEntryName = "attune_kernel";

// One kernel of a unit. All of a unit take the same parameters and have the same number of threads.
struct UnitEntry {
  const char* name;      // in the cubin
  const char* function;  // of namespace attune::kernel, that it instantiates
  bool shared;           // launched with the block's dynamic shared memory; else with none
};

// The main one, kEntryName, comes first. Precondition: the spec is not of family cpu.
[[nodiscard]] std::span<const UnitEntry> entries_of(const KernelSpec& spec);

// Places in entries_of() of a backward spec; bias is there only when the spec has it.
enum BackwardEntry : std::size_t { kKeysEntry, kRowsEntry, kFinishEntry, kBiasEntry };

// A few lines: includes the kernels' header and instantiates them for the spec. The same precondition.
[[nodiscard]] std::string source_for(const KernelSpec& spec);

// How a block of the kernels is launched. The same precondition.
struct BlockShape {
  int threads = 0;
  int blocks_an_sm = 0;     // that the compiler was told to leave registers for
  int shared_bytes = 0;     // dynamic
  int parameter_bytes = 0;  // of the one struct
};
[[nodiscard]] BlockShape block_shape(const KernelSpec& spec);

}  // namespace attune
