#include "spec/portable_rows.h"

#include <fmt/format.h>

#include <array>

#include "spec/features.h"
#include "spec/portable_table.h"

namespace attune {

namespace {

using kernel::PortableSpec;

constexpr std::array kHeadDims = {32, 64, 96, 128, 192, 256, 0};
constexpr std::array kArchs = {100, 80, 75};

PortableSpec with_tile(PortableSpec spec, const PortableTile& tile) {
  spec.queries = tile.queries;
  spec.keys = tile.keys;
  spec.warps = tile.warps;
  spec.stages = tile.stages;
  spec.blocks = tile.blocks;
  spec.paired = tile.paired;
  return spec;
}

}  // namespace

std::vector<PortableSpec> portable_rows(DType dtype, PortableTiles tiles) {
  std::vector<PortableSpec> rows;
  if (dtype == DType::f8e4m3) return rows;
  for (const int arch : kArchs) {
    for (const bool aligned : {true, false}) {
      for (const int head_dim : kHeadDims) {
        for (const FeatureSet& set : kFeatureSets) {
          // Where loads are slow anyway, leaving features out gains nothing.
          const bool slow = !aligned || head_dim == 0 || arch < 80;
          if (slow && !set.general) continue;
          if (set.general && !set.bias) continue;  // a gain on Hopper alone
          PortableSpec spec;
          spec.element = kernel_element(dtype);
          spec.arch = arch;
          spec.head_dim = head_dim;
          spec.aligned = aligned;
          spec.bias = set.bias;
          spec.dropout = set.dropout;
          spec.general = set.general;
          for (const PortableTile& tile : tiles(spec)) rows.push_back(with_tile(spec, tile));
        }
      }
    }
  }
  return rows;
}

bool same_but_for_tile(const PortableSpec& a, const PortableSpec& b) {
  PortableSpec c = with_tile(a, {b.queries, b.keys, b.warps, b.stages, b.blocks, b.paired});
  c.arch = b.arch;
  return c == b;
}

std::string portable_id(const PortableSpec& spec) {
  return fmt::format("sm{}.{}.d{}.{}.{}.q{}k{}", spec.arch, name_of(spec.element),
                     spec.head_dim == 0 ? "any" : std::to_string(spec.head_dim),
                     spec.aligned ? "aligned" : "strided", features_name(spec), spec.queries,
                     spec.keys);
}

}  // namespace attune
