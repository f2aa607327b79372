#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "cubin/bundle.h"
#include "cubin/bundle_format.h"
#include "cubin/content_hash.h"
#include "cubin/json_fields.h"
#include "io/no_throw.h"
#include "source/translation_unit.h"

namespace attune {

namespace {

Status refuse(std::string why) { return {Code::io_error, std::move(why)}; }

Status named(const std::string& name, const Status& status) {
  return {status.code(), name + ": " + status.message()};
}

// `blobs` is where the compressed cubins begin, `size` where the file ends.
Expected<BundleEntry> read_entry(const nlohmann::json& json, std::uint64_t blobs,
                                 std::uint64_t size) {
  const auto id = text_field(json, "id");
  const auto target = target_field(json, "target");
  const auto contents = text_field(json, "contents");
  const auto compiler = text_field(json, "compiler");
  const auto hash = text_field(json, "cubin_hash");
  const auto offset = count_field(json, "offset");
  const auto bytes = count_field(json, "bytes");
  const auto cubin_bytes = count_field(json, "cubin_bytes");
  if (!id) return refuse("has no id");
  if (!target || !contents || !compiler || !hash || !offset || !bytes || !cubin_bytes) {
    return refuse(fmt::format("{} lacks a field, or has one of another type", *id));
  }
  if (*offset > size - blobs || *bytes > size - blobs - *offset) {
    return refuse(
        fmt::format("{} claims {} bytes at {}; there are {}", *id, *bytes, *offset, size - blobs));
  }
  if (*cubin_bytes > bundle::kMostCubinBytes) {
    return refuse(fmt::format("{} claims a cubin of {} bytes; the limit is {}", *id, *cubin_bytes,
                              bundle::kMostCubinBytes));
  }
  return BundleEntry{{*id, *contents, *target, *compiler},
                     blobs + *offset,
                     *bytes,
                     *cubin_bytes,
                     *hash,
                     facts_field(json, "facts")};
}

Expected<std::vector<BundleEntry>> read_manifest(const ByteSource& source) {
  bundle::Header header{};
  if (source.size < sizeof(header)) {
    return refuse(fmt::format("is no bundle: it has {} bytes, less than a header", source.size));
  }
  if (Status status = source.read_at(0, std::as_writable_bytes(std::span(&header, 1)));
      !status.ok()) {
    return status;
  }
  if (header.magic != bundle::kMagic) {
    return refuse("is no bundle, or one that this version cannot read: it begins with other bytes");
  }
  if (header.manifest_bytes > source.size - sizeof(header) ||
      header.manifest_bytes > bundle::kMostManifestBytes) {
    return refuse(fmt::format("claims a manifest of {} bytes; {} follow", header.manifest_bytes,
                              source.size - sizeof(header)));
  }
  std::string text(header.manifest_bytes, '\0');
  if (Status status = source.read_at(sizeof(header), std::as_writable_bytes(std::span(text)));
      !status.ok()) {
    return status;
  }
  const std::string_view hash(header.manifest_hash.data(), header.manifest_hash.size());
  if (content_hash(std::as_bytes(std::span(text))) != hash) {
    return refuse("is damaged: the hash of its manifest differs");
  }
  const auto json = nlohmann::json::parse(text, nullptr, false);
  const nlohmann::json* list = json.is_discarded() ? nullptr : field(json, "entries");
  if (list == nullptr || !list->is_array() || count_field(json, "format") != bundle::kFormat) {
    return refuse(fmt::format("has no manifest of format {}", bundle::kFormat));
  }
  std::vector<BundleEntry> entries;
  const std::uint64_t blobs = sizeof(header) + header.manifest_bytes;
  for (const nlohmann::json& item : *list) {
    auto entry = read_entry(item, blobs, source.size);
    if (!entry.ok()) {
      return refuse(fmt::format("entry {} {}", entries.size(), entry.status().message()));
    }
    // Sorted, so that none is there twice.
    if (!entries.empty() && std::tie(entries.back().recipe.id, entries.back().recipe.target) >=
                                std::tie(entry->recipe.id, entry->recipe.target)) {
      return refuse(fmt::format("entry {} ({} for {}) is out of order or there twice",
                                entries.size(), entry->recipe.id, to_string(entry->recipe.target)));
    }
    entries.push_back(*std::move(entry));
  }
  return entries;
}

Expected<Cubin> load_cubin(const ByteSource& source, const BundleEntry& entry) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::byte> compressed(entry.bytes);
  if (Status status = source.read_at(entry.offset, compressed); !status.ok()) return status;
  const unsigned long long claimed = ZSTD_getFrameContentSize(compressed.data(), compressed.size());
  if (claimed != entry.cubin_bytes) {
    return refuse("is damaged: its compressed size differs from the manifest's");
  }
  Cubin cubin;
  cubin.bytes.resize(entry.cubin_bytes);
  const std::size_t size =
      ZSTD_decompress(cubin.bytes.data(), cubin.bytes.size(), compressed.data(), compressed.size());
  if (ZSTD_isError(size) != 0) {
    return refuse(fmt::format("is damaged: {}", ZSTD_getErrorName(size)));
  }
  if (size != entry.cubin_bytes || content_hash(cubin.bytes) != entry.cubin_hash) {
    return refuse("is damaged: the hash of its cubin differs");
  }
  const auto facts = read_facts(cubin.bytes, kEntryName);
  if (!facts.ok()) return facts.status();
  cubin.facts = *facts;
  cubin.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return cubin;
}

}  // namespace

Expected<Bundle> Bundle::open(const std::filesystem::path& path) {
  auto source = file_source(path);
  if (!source.ok()) return in_file(path, source.status());
  return read(*std::move(source), path.string());
}

Expected<Bundle> Bundle::read(ByteSource source, std::string name) {
  return no_throw([&]() -> Expected<Bundle> {
    auto entries = read_manifest(source);
    if (!entries.ok()) return named(name, entries.status());
    Bundle bundle;
    bundle.source_ = std::move(source);
    bundle.name_ = std::move(name);
    bundle.entries_ = *std::move(entries);
    return bundle;
  });
}

const BundleEntry* Bundle::find(std::string_view id, int device) const {
  const BundleEntry* best = nullptr;
  auto entry = std::lower_bound(
      entries_.begin(), entries_.end(), id,
      [](const BundleEntry& a, std::string_view wanted) { return a.recipe.id < wanted; });
  for (; entry != entries_.end() && entry->recipe.id == id; ++entry) {
    if (!runs_on(entry->recipe.target, device)) continue;
    if (best == nullptr || best->recipe.target < entry->recipe.target) best = &*entry;
  }
  return best;
}

Expected<Cubin> Bundle::load(const BundleEntry& entry) const {
  return no_throw([&]() -> Expected<Cubin> {
    auto cubin = load_cubin(source_, entry);
    if (!cubin.ok()) return named(name_ + ": " + entry.recipe.id, cubin.status());
    return cubin;
  });
}

}  // namespace attune
