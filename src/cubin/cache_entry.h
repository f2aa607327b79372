// One entry of the disk cache: a folder with the cubin and, beside it, what it was made from.
#pragma once

#include <attune/status.hpp>
#include <cstdint>
#include <filesystem>
#include <string>

#include "cubin/recipe.h"
#include "cubin/toolchain.h"

namespace attune {

inline constexpr const char* kCubinFile = "kernel.cubin";
inline constexpr const char* kMetaFile = "meta.json";

struct EntryMeta {
  Recipe recipe;
  std::string cubin_hash;
  std::uint64_t cubin_bytes = 0;
  double compile_seconds = 0;
  std::int64_t created = 0;  // seconds since 1970
  CubinFacts facts;
};

[[nodiscard]] std::string format_meta(const EntryMeta& meta);
// Refused when a field is missing or of another type. Messages continue "<path> ...".
[[nodiscard]] Expected<EntryMeta> parse_meta(const std::string& text);

// Reads meta.json alone.
[[nodiscard]] Expected<EntryMeta> read_meta(const std::filesystem::path& entry);

// The entry's folder, by all that the cubin was made from.
[[nodiscard]] std::string entry_name(const Recipe& recipe);

// Reads and checks all of it: the entry's name, the cubin's size and hash against the meta file, and its
// facts anew.
[[nodiscard]] Expected<Cubin> read_entry(const std::filesystem::path& entry, EntryMeta& meta);

// Writes both files into the existing folder; the meta file last.
[[nodiscard]] Status write_entry(const std::filesystem::path& entry, const Recipe& recipe,
                                 const Cubin& cubin);

}  // namespace attune
