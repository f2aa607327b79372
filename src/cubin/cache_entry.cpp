#include "cubin/cache_entry.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "cubin/content_hash.h"
#include "cubin/json_fields.h"
#include "io/file.h"
#include "source/translation_unit.h"

namespace attune {

namespace {

constexpr std::uint64_t kFormat = 1;
constexpr std::uint64_t kMostMetaBytes = 1 << 20;
constexpr std::uint64_t kMostCubinBytes = std::uint64_t{1} << 30;

Status missing(const char* name) { return {Code::io_error, fmt::format("has no {}", name)}; }

}  // namespace

std::string format_meta(const EntryMeta& meta) {
  const nlohmann::json json = {{"format", kFormat},
                               {"id", meta.recipe.id},
                               {"target", to_string(meta.recipe.target)},
                               {"contents", meta.recipe.contents},
                               {"compiler", meta.recipe.compiler},
                               {"cubin_hash", meta.cubin_hash},
                               {"cubin_bytes", meta.cubin_bytes},
                               {"compile_seconds", meta.compile_seconds},
                               {"created", meta.created},
                               {"facts", facts_json(meta.facts)}};
  return json.dump(2) + "\n";
}

Expected<EntryMeta> parse_meta(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) return Status(Code::io_error, "is no JSON");
  if (count_field(json, "format") != kFormat) return missing("format that this version reads");
  EntryMeta meta;
  const auto id = text_field(json, "id");
  const auto target = target_field(json, "target");
  const auto contents = text_field(json, "contents");
  const auto compiler = text_field(json, "compiler");
  const auto hash = text_field(json, "cubin_hash");
  const auto bytes = count_field(json, "cubin_bytes");
  if (!id) return missing("id");
  if (!target) return missing("target");
  if (!contents) return missing("contents");
  if (!compiler) return missing("compiler");
  if (!hash || !bytes) return missing("hash and size of the cubin");
  meta.recipe = {*id, *contents, *target, *compiler};
  meta.cubin_hash = *hash;
  meta.cubin_bytes = *bytes;
  meta.compile_seconds = number_field(json, "compile_seconds").value_or(0);
  constexpr std::uint64_t kLatest = std::uint64_t{1} << 40;
  meta.created =
      static_cast<std::int64_t>(std::min(count_field(json, "created").value_or(0), kLatest));
  meta.facts = facts_field(json, "facts");
  return meta;
}

Expected<EntryMeta> read_meta(const std::filesystem::path& entry) {
  const auto path = entry / kMetaFile;
  const auto bytes = read_file(path, kMostMetaBytes);
  if (!bytes.ok()) return bytes.status();
  auto meta = parse_meta(std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
  if (!meta.ok()) return in_file(path, meta.status());
  return meta;
}

std::string entry_name(const Recipe& recipe) {
  return fmt::format("{}.{}.{}", recipe.id, to_string(recipe.target), recipe.key());
}

Expected<Cubin> read_entry(const std::filesystem::path& entry, EntryMeta& meta) {
  auto read = read_meta(entry);
  if (!read.ok()) return read.status();
  meta = *std::move(read);
  if (entry.filename() != entry_name(meta.recipe)) {
    return in_file(entry, Status(Code::io_error, "is not of the kernel that its name says"));
  }
  const auto path = entry / kCubinFile;
  auto bytes = read_file(path, kMostCubinBytes);
  if (!bytes.ok()) return bytes.status();
  if (bytes->size() != meta.cubin_bytes) {
    return in_file(path, Status(Code::io_error, fmt::format("has {} bytes; {} were written",
                                                            bytes->size(), meta.cubin_bytes)));
  }
  if (content_hash(*bytes) != meta.cubin_hash) {
    return in_file(path, Status(Code::io_error, "is not what was written: its hash differs"));
  }
  const auto facts = read_facts(*bytes, kEntryName);
  if (!facts.ok()) return in_file(path, facts.status());
  return Cubin{*std::move(bytes), *facts, meta.compile_seconds};
}

Status write_entry(const std::filesystem::path& entry, const Recipe& recipe, const Cubin& cubin) {
  const std::span<const std::byte> code(cubin.bytes);
  if (Status status = write_file(entry / kCubinFile, std::span(&code, 1)); !status.ok()) {
    return status;
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::string text =
      format_meta({recipe, content_hash(cubin.bytes), cubin.bytes.size(), cubin.seconds,
                   std::chrono::duration_cast<std::chrono::seconds>(now).count(), cubin.facts});
  const std::span<const std::byte> meta = std::as_bytes(std::span(text));
  return write_file(entry / kMetaFile, std::span(&meta, 1));
}

}  // namespace attune
