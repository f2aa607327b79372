#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>

#include "cubin/bundle.h"
#include "cubin/bundle_format.h"
#include "cubin/content_hash.h"
#include "cubin/json_fields.h"
#include "io/no_throw.h"

namespace attune {

namespace {

// A bundle is written once and read often; 0.1 s more a kernel for a tenth less.
constexpr int kLevel = 19;

Expected<std::vector<std::byte>> compress(std::span<const std::byte> bytes) {
  std::vector<std::byte> out(ZSTD_compressBound(bytes.size()));
  const std::size_t size =
      ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), kLevel);
  if (ZSTD_isError(size) != 0) {
    return Status(Code::internal, fmt::format("zstd: {}", ZSTD_getErrorName(size)));
  }
  out.resize(size);
  return out;
}

auto order(const BundleItem& item) { return std::tie(item.recipe.id, item.recipe.target); }

Expected<std::vector<std::byte>> format(std::vector<BundleItem> items) {
  std::sort(items.begin(), items.end(),
            [](const BundleItem& a, const BundleItem& b) { return order(a) < order(b); });
  std::vector<std::byte> blobs;
  nlohmann::json entries = nlohmann::json::array();
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& [recipe, cubin] = items[i];
    if (i > 0 && order(items[i - 1]) == order(items[i])) {
      return Status(Code::invalid_argument,
                    fmt::format("{} for {} is there twice", recipe.id, to_string(recipe.target)));
    }
    const auto compressed = compress(cubin.bytes);
    if (!compressed.ok()) return compressed.status();
    entries.push_back({{"id", recipe.id},
                       {"target", to_string(recipe.target)},
                       {"contents", recipe.contents},
                       {"compiler", recipe.compiler},
                       {"offset", blobs.size()},
                       {"bytes", compressed->size()},
                       {"cubin_bytes", cubin.bytes.size()},
                       {"cubin_hash", content_hash(cubin.bytes)},
                       {"facts", facts_json(cubin.facts)}});
    blobs.insert(blobs.end(), compressed->begin(), compressed->end());
  }
  const nlohmann::json json = {{"format", bundle::kFormat}, {"entries", std::move(entries)}};
  const std::string manifest = json.dump(1);
  bundle::Header header{bundle::kMagic, manifest.size(), {}};
  const std::string hash = content_hash(std::as_bytes(std::span(manifest)));
  std::copy_n(hash.begin(), header.manifest_hash.size(), header.manifest_hash.begin());
  std::vector<std::byte> file(sizeof(header) + manifest.size());
  std::memcpy(file.data(), &header, sizeof(header));
  std::memcpy(file.data() + sizeof(header), manifest.data(), manifest.size());
  file.insert(file.end(), blobs.begin(), blobs.end());
  return file;
}

}  // namespace

Expected<std::vector<std::byte>> format_bundle(std::vector<BundleItem> items) {
  return no_throw([&] { return format(std::move(items)); });
}

}  // namespace attune
