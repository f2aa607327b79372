#include "cubin/cubin_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "cubin/elf.h"
#include "cubin/nv_info.h"

namespace attune {

namespace {

// Attributes of records.
enum Attribute : unsigned {
  kMaxThreads = 0x05,     // of a block: x, y, z
  kFrameSize = 0x11,      // (symbol, bytes)
  kMinStackSize = 0x12,   // (symbol, bytes), with what it calls
  kParameterSize = 0x19,  // the 16-bit value
  kRegisterCount = 0x2f,  // (symbol, registers)
};

std::uint32_t clamp32(std::uint64_t size) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(size, 0xffffffffu));
}

Expected<CubinFacts> facts_of(const ElfFile& elf, const std::string& name) {
  const ElfSection* code = elf.section(".text." + name);
  const ElfSection* all = elf.section(".nv.info");
  const ElfSection* own = elf.section(".nv.info." + name);
  if (code == nullptr || all == nullptr || own == nullptr) {
    return contradicts_itself(fmt::format("it has no kernel {}", name));
  }
  CubinFacts facts;
  facts.code_bytes = clamp32(code->size);
  if (const ElfSection* shared = elf.section(".nv.shared." + name)) {
    facts.shared_bytes = clamp32(shared->size);
  }
  if (const ElfSection* local = elf.section(".nv.local." + name)) {
    facts.local_bytes = clamp32(local->size);
  }
  // Of functions that were not inlined the largest counts: a kernel has none, when all is well.
  const auto take = [&](const NvInfoRecord& record) {
    const auto symbol = number_at<std::uint32_t>(record.data, 0);
    const auto value = number_at<std::uint32_t>(record.data, sizeof(std::uint32_t));
    if (!symbol || !value) return;
    const bool ours = *symbol < elf.symbols.size() && elf.symbols[*symbol] == name;
    if (record.attribute == kRegisterCount && ours) facts.registers = *value;
    if (record.attribute == kFrameSize || (record.attribute == kMinStackSize && ours)) {
      facts.local_bytes = std::max(facts.local_bytes, *value);
    }
  };
  if (Status status = each_record(*all, take); !status.ok()) return status;
  // The whole counts what lies between parameters, or before one that is aligned; each alone does not.
  std::uint32_t each = 0;
  const auto take_own = [&](const NvInfoRecord& record) {
    if (record.attribute == kParameterSize) facts.parameter_bytes = record.value;
    if (record.attribute == kParameter) {
      each += number_at<std::uint32_t>(record.data, kParameterBytesAt).value_or(0) >>
              kParameterBytesShift;
    }
    if (record.attribute != kMaxThreads) return;
    std::uint64_t threads = 1;
    for (std::uint64_t i = 0; i < 3; ++i) {
      const std::uint32_t extent = number_at<std::uint32_t>(record.data, i * 4).value_or(1);
      threads = clamp32(threads * extent);
    }
    facts.max_threads = static_cast<std::uint32_t>(threads);
  };
  if (Status status = each_record(*own, take_own); !status.ok()) return status;
  if (each > 0) facts.parameter_bytes = each;
  if (facts.registers == 0) return contradicts_itself(fmt::format("{} uses no register", name));
  return facts;
}

CubinFacts worst_of(const CubinFacts& a, const CubinFacts& b) {
  return {
      std::max(a.registers, b.registers),     std::max(a.shared_bytes, b.shared_bytes),
      std::max(a.local_bytes, b.local_bytes), a.parameter_bytes,
      std::min(a.max_threads, b.max_threads), clamp32(std::uint64_t{a.code_bytes} + b.code_bytes)};
}

}  // namespace

Expected<CubinFacts> read_facts(std::span<const std::byte> cubin, std::string_view entry) {
  const auto elf = read_cubin(cubin);
  if (!elf.ok()) return elf.status();
  Expected<CubinFacts> worst = facts_of(*elf, std::string(entry));
  if (!worst.ok()) return worst;
  constexpr int kMost = 16;  // no cubin of ours has as many
  const std::string others = std::string(kText) + std::string(entry) + "_";
  int kernels = 1;
  for (const ElfSection& section : elf->sections) {
    if (!section.name.starts_with(others)) continue;
    if (++kernels > kMost)
      return contradicts_itself(fmt::format("it has more than {} kernels", kMost));
    const std::string name(section.name.substr(kText.size()));
    const auto facts = facts_of(*elf, name);
    if (!facts.ok()) return facts;
    if (facts->parameter_bytes != worst->parameter_bytes) {
      return contradicts_itself(fmt::format("{} takes {} bytes of parameters, and {} takes {}",
                                            entry, worst->parameter_bytes, name,
                                            facts->parameter_bytes));
    }
    worst = worst_of(*worst, *facts);
  }
  return worst;
}

}  // namespace attune
