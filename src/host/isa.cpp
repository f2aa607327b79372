#include "host/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "host/environment.h"

namespace attune {

namespace {

struct NamedIsa {
  Isa isa;
  std::string_view name;
};
constexpr std::array kNames = {
    NamedIsa{Isa::generic, "generic"}, NamedIsa{Isa::avx2, "avx2"},
    NamedIsa{Isa::avx512, "avx512"},   NamedIsa{Isa::avx512bf16, "avx512bf16"},
    NamedIsa{Isa::amx, "amx"},
};

#if defined(__x86_64__)

struct CpuId {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuId cpuid(unsigned leaf, unsigned subleaf) {
  CpuId id;
  if (__get_cpuid_count(leaf, subleaf, &id.eax, &id.ebx, &id.ecx, &id.edx) == 0) return {};
  return id;
}

bool bit(unsigned word, int index) { return ((word >> index) & 1u) != 0; }

std::uint64_t enabled_state() {
  if (!bit(cpuid(1, 0).ecx, 27)) return 0;  // OSXSAVE
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Linux hands out the AMX tile registers only on request, once a process.
bool request_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::string find_missing(Isa isa) {
  const CpuId one = cpuid(1, 0);
  const CpuId seven = cpuid(7, 0);
  const CpuId seven_one = cpuid(7, 1);
  const std::uint64_t state = enabled_state();
  const auto lacks = [](std::string_view what) { return "this CPU lacks " + std::string(what); };
  const auto disabled = [](std::string_view what) {
    return "the operating system does not save " + std::string(what) + " registers";
  };
  if (isa == Isa::generic) return {};
  if (!bit(seven.ebx, 5)) return lacks("avx2");
  if (!bit(one.ecx, 12)) return lacks("fma");
  if (!bit(one.ecx, 29)) return lacks("f16c");
  if (!bit(seven.ebx, 8)) return lacks("bmi2");
  if ((state & 0x6) != 0x6) return disabled("AVX");
  if (isa == Isa::avx2) return {};
  if (!bit(seven.ebx, 16)) return lacks("avx512f");
  if (!bit(seven.ebx, 17)) return lacks("avx512dq");
  if (!bit(seven.ebx, 30)) return lacks("avx512bw");
  if (!bit(seven.ebx, 31)) return lacks("avx512vl");
  if ((state & 0xe6) != 0xe6) return disabled("AVX-512");
  if (isa == Isa::avx512) return {};
  if (!bit(seven_one.eax, 5)) return lacks("avx512_bf16");
  if (isa == Isa::avx512bf16) return {};
  if (!bit(seven.edx, 24)) return lacks("amx_tile");
  if (!bit(seven.edx, 22)) return lacks("amx_bf16");
  if ((state & 0x60000) != 0x60000) return disabled("AMX tile");
  if (!request_tiles()) return "the kernel refuses AMX tiles to this process (arch_prctl)";
  return {};
}

#else

std::string find_missing(Isa isa) {
  if (isa == Isa::generic) return {};
  return std::string(to_string(isa)) + " is an x86-64 instruction set";
}

#endif

}  // namespace

std::string_view to_string(Isa isa) { return kNames[static_cast<std::size_t>(isa)].name; }

std::optional<Isa> isa_from(std::string_view name) {
  for (const NamedIsa& known : kNames) {
    if (known.name == name) return known.isa;
  }
  return std::nullopt;
}

const std::string& missing_for(Isa isa) {
  static const std::array<std::string, kAllIsas.size()> missing = {
      find_missing(Isa::generic), find_missing(Isa::avx2), find_missing(Isa::avx512),
      find_missing(Isa::avx512bf16), find_missing(Isa::amx)};
  return missing[static_cast<std::size_t>(isa)];
}

bool bf16_dot_is_slow() {
#if defined(__x86_64__)
  static const bool intel = cpuid(0, 0).ebx == 0x756e6547u;  // "Genu"
  return intel;
#else
  return false;
#endif
}

std::string cpu_isa_variable() { return environment("ATTUNE_CPU_ISA").value_or(std::string{}); }

}  // namespace attune
