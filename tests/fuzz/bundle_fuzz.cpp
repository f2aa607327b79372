// The bundle reader on any bytes: it refuses with a reason, or what it gives back are cubins that its
// own writer bundles again. The input is read as a bundle, and again as what follows a header that is
// right (up to the first 0 a manifest, then the cubins), since no fuzzer guesses a hash.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "cubin/bundle.h"
#include "cubin/bundle_format.h"
#include "cubin/content_hash.h"

namespace {

void check(std::span<const std::byte> bytes) {
  const auto bundle = attune::Bundle::read(attune::memory_source(bytes), "x");
  if (!bundle.ok()) {
    if (bundle.status().message().empty()) std::abort();
    return;
  }
  std::vector<attune::BundleItem> items;
  for (const attune::BundleEntry& entry : bundle->entries()) {
    auto cubin = bundle->load(entry);
    if (cubin.ok()) {
      items.push_back({entry.recipe, *std::move(cubin)});
    } else if (cubin.status().message().empty()) {
      std::abort();
    }
  }
  const auto again = attune::format_bundle(items);
  if (!again.ok()) std::abort();
  const auto read = attune::Bundle::read(attune::memory_source(*again), "x");
  if (!read.ok() || read->entries().size() != items.size()) std::abort();
}

std::vector<std::byte> with_header(std::span<const std::byte> body) {
  const auto end = std::find(body.begin(), body.end(), std::byte{0});
  const auto manifest = body.first(static_cast<std::size_t>(end - body.begin()));
  attune::bundle::Header header{attune::bundle::kMagic, manifest.size(), {}};
  const std::string hash = attune::content_hash(manifest);
  std::copy_n(hash.begin(), header.manifest_hash.size(), header.manifest_hash.begin());
  std::vector<std::byte> bytes(sizeof(header));
  std::memcpy(bytes.data(), &header, sizeof(header));
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  check(bytes);
  check(with_header(bytes));
  return 0;
}
