// Which rows of the kernel table a command means, and for which architectures.
#pragma once

#include <attune/status.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cubin/target.h"
#include "cubin/toolchain.h"
#include "spec/kernel_spec.h"

namespace attune::cli {

// Rows that are compiled for GPUs.
[[nodiscard]] std::vector<KernelSpec> gpu_rows();

// "portable", ... of kernels that are compiled for GPUs. Refused with the list of families.
[[nodiscard]] Expected<Family> gpu_family_from(std::string_view name);

// The row of an id. Refused for ids that are unknown or belong to the CPU.
[[nodiscard]] Expected<KernelSpec> gpu_row(std::string_view id);

// One id per line; '#' begins a comment. Errors name the file and the line.
[[nodiscard]] Expected<std::vector<KernelSpec>> read_catalog(const std::string& path);

// "sm_80,sm_90", or "all" for everything that the toolchain knows; each of them known to it.
[[nodiscard]] Expected<std::vector<Target>> targets_from(std::string_view text,
                                                         const Toolchain& toolchain);

// "sm_86" -> 86.
[[nodiscard]] Expected<Target> target_named(std::string_view name);

[[nodiscard]] Expected<Compiler> compiler_from(std::string_view name);

}  // namespace attune::cli
