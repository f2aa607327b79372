#include "cubin/elf.h"

#include <fmt/format.h>

#include <array>

namespace attune {

namespace {

// From the ELF specification.
struct Header {
  std::array<unsigned char, 16> ident;
  std::uint16_t type, machine;
  std::uint32_t version;
  std::uint64_t entry, program_headers, section_headers;
  std::uint32_t flags;
  std::uint16_t header_bytes, program_header_bytes, program_header_count;
  std::uint16_t section_header_bytes, section_count, names_index;
};
struct SectionHeader {
  std::uint32_t name, type;
  std::uint64_t flags, address, offset, size;
  std::uint32_t link, info;
  std::uint64_t alignment, entry_bytes;
};
struct Symbol {
  std::uint32_t name;
  unsigned char info, other;
  std::uint16_t section;
  std::uint64_t value, size;
};
static_assert(sizeof(Header) == 64 && sizeof(SectionHeader) == 64 && sizeof(Symbol) == 24);

constexpr std::array<unsigned char, 6> kMagic = {0x7f, 'E', 'L', 'F', 2 /* 64 bits */,
                                                 1 /* little-endian */};
constexpr std::uint32_t kSymbolTable = 2;
constexpr std::uint32_t kNoBits = 8;

Status refuse(std::string why) { return {Code::io_error, "is no ELF file: " + std::move(why)}; }

// The 0-terminated text at `offset` of a string table.
std::optional<std::string_view> text_at(std::span<const std::byte> table, std::uint64_t offset) {
  if (offset >= table.size()) return std::nullopt;
  const auto rest = table.subspan(offset);
  const void* end = std::memchr(rest.data(), 0, rest.size());
  if (end == nullptr) return std::nullopt;
  return std::string_view(
      reinterpret_cast<const char*>(rest.data()),
      static_cast<std::size_t>(static_cast<const std::byte*>(end) - rest.data()));
}

Status read_symbols(std::span<const std::byte> table, std::span<const std::byte> names,
                    ElfFile& file) {
  if (table.size() % sizeof(Symbol) != 0) return refuse("its symbol table ends within a symbol");
  for (std::uint64_t at = 0; at < table.size(); at += sizeof(Symbol)) {
    const auto name = text_at(names, number_at<Symbol>(table, at)->name);
    if (!name) return refuse(fmt::format("symbol {} has no name", at / sizeof(Symbol)));
    file.symbols.push_back(*name);
  }
  return {};
}

}  // namespace

const ElfSection* ElfFile::section(std::string_view name) const {
  for (const ElfSection& candidate : sections) {
    if (candidate.name == name) return &candidate;
  }
  return nullptr;
}

Expected<ElfFile> read_elf(std::span<const std::byte> bytes) {
  const auto header = number_at<Header>(bytes, 0);
  if (!header) return refuse(fmt::format("it has {} bytes, less than a header", bytes.size()));
  if (std::memcmp(header->ident.data(), kMagic.data(), kMagic.size()) != 0) {
    return refuse("it begins with other bytes");
  }
  if (header->section_header_bytes != sizeof(SectionHeader)) {
    return refuse(fmt::format("its section headers have {} bytes", header->section_header_bytes));
  }
  ElfFile file;
  file.machine = header->machine;
  std::vector<SectionHeader> headers;
  if (header->section_headers > bytes.size()) {
    return refuse("its section headers lie past its end");
  }
  for (std::uint64_t i = 0; i < header->section_count; ++i) {
    const auto section =
        number_at<SectionHeader>(bytes, header->section_headers + i * sizeof(SectionHeader));
    if (!section) return refuse(fmt::format("section header {} lies past its end", i));
    ElfSection read{.name = {}, .type = section->type, .size = section->size, .data = {}};
    if (section->type != kNoBits) {
      if (section->offset > bytes.size() || section->size > bytes.size() - section->offset) {
        return refuse(fmt::format("section {} claims bytes {} to {} of {}", i, section->offset,
                                  section->offset + section->size, bytes.size()));
      }
      read.data = bytes.subspan(section->offset, section->size);
    }
    headers.push_back(*section);
    file.sections.push_back(read);
  }
  if (header->names_index >= headers.size()) return refuse("it has no section names");
  const auto names = file.sections[header->names_index].data;
  for (std::size_t i = 0; i < headers.size(); ++i) {
    const auto name = text_at(names, headers[i].name);
    if (!name) return refuse(fmt::format("section {} has no name", i));
    file.sections[i].name = *name;
  }
  for (std::size_t i = 0; i < headers.size(); ++i) {
    if (headers[i].type != kSymbolTable) continue;
    if (!file.symbols.empty()) return refuse("it has two symbol tables");
    if (headers[i].link >= headers.size()) return refuse("its symbols have no names");
    if (Status status =
            read_symbols(file.sections[i].data, file.sections[headers[i].link].data, file);
        !status.ok()) {
      return status;
    }
  }
  return file;
}

}  // namespace attune
