// KernelSpec: one row of the kernel table, and its id.
#pragma once

#include <attune/problem.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/isa.h"

namespace attune {

enum class Family : std::uint8_t { cpu };

struct KernelSpec {
  Kind kind = Kind::forward;
  Family family = Family::cpu;
  DType dtype = DType::f32;
  Isa isa = Isa::generic;
  friend bool operator==(const KernelSpec&, const KernelSpec&) = default;
};

// "fwd.cpu.bf16.avx512bf16"; text -> spec -> text is the identity.
[[nodiscard]] std::string id_of(const KernelSpec& spec);
[[nodiscard]] std::optional<KernelSpec> spec_from(std::string_view id);

// Every spec that may exist, in order of preference.
[[nodiscard]] const std::vector<KernelSpec>& kernel_table();

}  // namespace attune
