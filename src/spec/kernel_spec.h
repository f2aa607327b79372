// KernelSpec: one row of the kernel table, and its id.
#pragma once

#include <attune/spec/hopper.h>
#include <attune/spec/portable.h>

#include <attune/problem.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/isa.h"

namespace attune {

enum class Family : std::uint8_t { cpu, portable, hopper };

// Half-open range of compute capabilities, as 10 * major + minor, whose devices run a spec's code.
struct ArchRange {
  int begin = 0;
  int end = 0;
  friend bool operator==(const ArchRange&, const ArchRange&) = default;
};
inline constexpr int kAnyLaterArch = 1 << 30;

struct KernelSpec {
  Kind kind = Kind::forward;
  Family family = Family::cpu;
  DType dtype = DType::f32;
  Isa isa = Isa::generic;           // family cpu
  kernel::PortableSpec portable{};  // family portable; its element is dtype
  kernel::HopperSpec hopper{};      // family hopper; likewise
  ArchRange archs{};                // of the GPU families
  friend bool operator==(const KernelSpec&, const KernelSpec&) = default;
};

// "fwd.cpu.bf16.avx512bf16", "fwd.portable.sm80.bf16.d128.aligned.plain.q128k64",
// "fwd.hopper.sm90a.bf16.d128.plain.q128k128"; text -> spec -> text is the identity.
[[nodiscard]] std::string id_of(const KernelSpec& spec);
[[nodiscard]] std::optional<KernelSpec> spec_from(std::string_view id);

// Every spec that may exist, in order of preference within a kind, a family and a dtype.
[[nodiscard]] const std::vector<KernelSpec>& kernel_table();

}  // namespace attune
