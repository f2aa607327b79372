// A reader of 64-bit little-endian ELF files that believes nothing: every offset and size is held
// against the file before it is used.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace attune {

struct ElfSection {
  std::string_view name;
  std::uint32_t type = 0;
  std::uint64_t size = 0;           // in memory; a section without bits has no data
  std::span<const std::byte> data;  // empty for a section without bits
};

struct ElfFile {
  std::uint16_t machine = 0;
  std::vector<ElfSection> sections;       // by index
  std::vector<std::string_view> symbols;  // names, by index; of the only symbol table

  [[nodiscard]] const ElfSection* section(std::string_view name) const;
};

// Valid while `bytes` is. Messages continue a sentence: "is no ELF file: ...".
[[nodiscard]] Expected<ElfFile> read_elf(std::span<const std::byte> bytes);

// A number at `offset`; nothing when it does not lie inside.
template <typename T>
[[nodiscard]] std::optional<T> number_at(std::span<const std::byte> bytes, std::uint64_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

}  // namespace attune
