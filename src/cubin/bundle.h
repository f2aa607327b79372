// Bundles: cubins of chosen kernels in one file, compiled ahead of time. docs/cubin.md has the format.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cubin/recipe.h"
#include "cubin/toolchain.h"
#include "io/file.h"

namespace attune {

struct BundleEntry {
  Recipe recipe;
  std::uint64_t offset = 0;  // of the compressed cubin, from the file's beginning
  std::uint64_t bytes = 0;   // compressed
  std::uint64_t cubin_bytes = 0;
  std::string cubin_hash;
  CubinFacts facts;  // as written; what load() returns is read anew
};

class Bundle {
 public:
  // Reads the manifest; cubins are read when they are asked for. `name` is what messages call it.
  [[nodiscard]] static Expected<Bundle> open(const std::filesystem::path& path);
  [[nodiscard]] static Expected<Bundle> read(ByteSource source, std::string name);

  [[nodiscard]] const std::string& name() const { return name_; }
  // In order of id and target.
  [[nodiscard]] const std::vector<BundleEntry>& entries() const { return entries_; }

  // The kernel for the latest architecture that `device` runs; null when there is none.
  [[nodiscard]] const BundleEntry* find(std::string_view id, int device) const;

  // Checked against its size and hash. Errors name the bundle and the id.
  [[nodiscard]] Expected<Cubin> load(const BundleEntry& entry) const;

 private:
  ByteSource source_;
  std::string name_;
  std::vector<BundleEntry> entries_;
};

struct BundleItem {
  Recipe recipe;
  Cubin cubin;
};

// The bytes of a bundle of the items; the same items give the same bytes, in whatever order.
[[nodiscard]] Expected<std::vector<std::byte>> format_bundle(std::vector<BundleItem> items);

}  // namespace attune
