#include "spec/portable_table.h"

#include <fmt/format.h>

#include <array>

namespace attune {

namespace {

using kernel::Element;
using kernel::PortableSpec;

struct FeatureSet {
  bool bias, dropout, general;
  const char* name;
};
constexpr std::array kFeatureSets = {
    FeatureSet{false, false, false, "plain"}, FeatureSet{true, false, false, "bias"},
    FeatureSet{false, true, false, "dropout"}, FeatureSet{true, true, true, "full"}};
constexpr std::array kHeadDims = {32, 64, 96, 128, 192, 256, 0};
constexpr std::array kArchs = {80, 75};

Element element_of(DType dtype) {
  if (dtype == DType::f16) return Element::f16;
  return dtype == DType::bf16 ? Element::bf16 : Element::f32;
}

const char* name_of(Element element) {
  if (element == Element::f16) return "f16";
  return element == Element::bf16 ? "bf16" : "f32";
}

struct Tile {
  int queries, keys, warps, stages, blocks;
  bool paired = false;
};

// Without tensor cores a thread's work is unrolled key by key: short tiles keep the code short.
Tile simt_tile(const PortableSpec& spec) {
  const int row = (spec.head_dim == 0 ? 64 : spec.head_dim) * bytes_of(spec.element);
  return row > 512 ? Tile{16, 16, 1, 1, 1} : Tile{32, 16, 2, 1, 1};
}

// f32 by split tf32. All fit the 99 KiB that the smallest devices of the range have.
Tile split_tile(const PortableSpec& spec, bool featured) {
  switch (spec.head_dim) {
    case 32:
    case 64:
      return {64, featured ? 32 : 48, 4, 2, 2};
    case 96:
    case 128:
      return featured ? Tile{64, 16, 4, 2, 2} : Tile{64, 32, 4, 2, 2};
    default:
      return {64, 32, 4, 1, 2};
  }
}

Tile half_tile(const PortableSpec& spec, bool featured) {
  switch (spec.head_dim) {
    case 32:
    case 64:
      if (!featured) return {128, spec.head_dim == 64 ? 80 : 64, 4, 2, 2};
      if (spec.general) return {64, 32, 4, 2, 3};
      return spec.bias ? Tile{64, 128, 4, 2, 2} : Tile{64, 64, 4, 2, 3};
    case 96:
      if (!featured) return {128, 64, 4, 2, 2};
      return {64, spec.general ? 32 : 64, 4, 2, 2};
    case 128:
      if (!featured) return {128, 48, 4, 2, 2};
      if (spec.general) return {64, 32, 4, 2, 2};
      return {64, 64, 4, 2, 2};
    case 192:
    case 256:
      return {64, 32, 4, 2, featured ? 1 : 2};
    default:
      return {64, 64, 4, 1, 2};
  }
}

// Warps that share rows take all the shared memory of the large devices; the row after this one serves
// the others.
constexpr Tile kPairedTile = {128, 64, 8, 2, 1, true};

bool gains_from_pairs(const PortableSpec& spec) {
  return spec.element != Element::f32 && spec.arch >= 80 && spec.head_dim > 128 && spec.aligned &&
         !spec.bias && !spec.dropout && !spec.general;
}

// Measured: docs/kernels/forward_portable.md.
Tile choose_tile(const PortableSpec& spec) {
  const bool tensor = spec.element == Element::f16 || spec.arch >= 80;
  if (!tensor) return simt_tile(spec);
  if (spec.arch < 80) {  // 64 KiB
    return {64, spec.head_dim > 128 ? 16 : 32, 4, 1, 1};
  }
  const bool featured = spec.bias || spec.dropout || spec.general;
  return spec.element == Element::f32 ? split_tile(spec, featured) : half_tile(spec, featured);
}

PortableSpec with_tile(PortableSpec spec, const Tile& tile) {
  spec.queries = tile.queries;
  spec.keys = tile.keys;
  spec.warps = tile.warps;
  spec.stages = tile.stages;
  spec.blocks = tile.blocks;
  spec.paired = tile.paired;
  return spec;
}

}  // namespace

std::vector<PortableSpec> portable_forward_rows(DType dtype) {
  std::vector<PortableSpec> rows;
  for (const int arch : kArchs) {
    for (const bool aligned : {true, false}) {
      for (const int head_dim : kHeadDims) {
        for (const FeatureSet& set : kFeatureSets) {
          // Where loads are slow anyway, leaving features out gains nothing.
          const bool slow = !aligned || head_dim == 0 || arch < 80;
          if (slow && !set.general) continue;
          // O, S and the splits of f32 together pass 255 registers there.
          if (dtype == DType::f32 && arch >= 80 && head_dim > 128) continue;
          PortableSpec spec;
          spec.element = element_of(dtype);
          spec.arch = arch;
          spec.head_dim = head_dim;
          spec.aligned = aligned;
          spec.bias = set.bias;
          spec.dropout = set.dropout;
          spec.general = set.general;
          if (gains_from_pairs(spec)) rows.push_back(with_tile(spec, kPairedTile));
          rows.push_back(with_tile(spec, choose_tile(spec)));
        }
      }
    }
  }
  return rows;
}

std::string portable_id(const PortableSpec& spec) {
  const char* features = "";
  for (const FeatureSet& set : kFeatureSets) {
    if (set.bias == spec.bias && set.dropout == spec.dropout && set.general == spec.general) {
      features = set.name;
    }
  }
  return fmt::format("sm{}.{}.d{}.{}.{}.q{}k{}", spec.arch, name_of(spec.element),
                     spec.head_dim == 0 ? "any" : std::to_string(spec.head_dim),
                     spec.aligned ? "aligned" : "strided", features, spec.queries, spec.keys);
}

}  // namespace attune
