// Instruction sets of the CPU backend: what each is called, and whether this machine has it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace attune {

// In order of preference, best last.
enum class Isa : std::uint8_t { generic, avx2, avx512, avx512bf16, amx };
inline constexpr std::array kAllIsas = {Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512bf16,
                                        Isa::amx};

[[nodiscard]] std::string_view to_string(Isa isa);
[[nodiscard]] std::optional<Isa> isa_from(std::string_view name);

// Empty when this machine and this build can run the set; else what is missing, e.g.
// "this CPU lacks amx_bf16".
[[nodiscard]] const std::string& missing_for(Isa isa);

// Intel runs vdpbf16ps at half the rate of its two FMA ports, so that plain float products are the
// faster way to multiply bf16 there (measured: docs/kernels/cpu.md); AMD runs it at full rate.
[[nodiscard]] bool bf16_dot_is_slow();

// The value of ATTUNE_CPU_ISA, empty when unset. An unknown name is for the caller to report.
[[nodiscard]] std::string cpu_isa_variable();

}  // namespace attune
