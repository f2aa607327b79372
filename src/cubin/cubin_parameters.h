// What a cubin says of itself beside its costs: for which architecture it is, and what its kernels take.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cubin/target.h"

namespace attune {

// Bytes of each parameter of a kernel, in order. The bytes are hostile until read; messages continue a
// sentence: "is a cubin that contradicts itself: ...".
[[nodiscard]] Expected<std::vector<std::uint32_t>> read_parameters(std::span<const std::byte> cubin,
                                                                   std::string_view kernel);

// Threads of a block that a kernel was compiled for and no others; nothing where any will do.
[[nodiscard]] Expected<std::optional<std::uint64_t>> read_required_threads(
    std::span<const std::byte> cubin, std::string_view kernel);

// Kernels by name, in the file's order.
[[nodiscard]] Expected<std::vector<std::string_view>> read_kernels(
    std::span<const std::byte> cubin);

// The architecture of the code.
[[nodiscard]] Expected<Target> read_target(std::span<const std::byte> cubin);

}  // namespace attune
