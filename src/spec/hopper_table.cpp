#include "spec/hopper_table.h"

#include <fmt/format.h>

#include <array>
#include <numeric>

#include "spec/features.h"

namespace attune {

namespace {

using kernel::HopperSpec;

enum RowKind { kWithoutLse, kMatesWithoutLse, kWithLse, kMates, kSplit, kBytes };

struct Dims {
  int head, value;
};
constexpr std::array kDims = {Dims{64, 64},   Dims{96, 96},   Dims{128, 128},
                              Dims{192, 128}, Dims{192, 192}, Dims{256, 256}};

struct Tile {
  int queries, keys;
  TileCycles cycles = {};
};

// For few queries, and for few tiles of many.
std::vector<Tile> split_tiles_of(const HopperSpec& spec) {
  if (spec.bias || spec.dropout || spec.general) return {};
  switch (spec.head_dim) {
    case 64:
      return {{64, 128, {10000, 1450}}, {128, 128, {12500, 1990}}};
    case 96:
    case 128:
      return {{64, 128, {11500, 1700}}, {128, 128, {13000, 2665}}};
    case 192:
      return {{64, 96, {12500, 1700}}, {128, 96, {15000, 3000}}};
    default:
      return {{64, 64, {14000, 1450}}, {128, 64, {18000, 2450}}};
  }
}

// Without features, and of head dims that fill whole panels or half of one. At 256 columns the registers of two
// warpgroups do not hold O beside the sums of a part of it.
std::vector<Tile> eighth_tiles_of(const HopperSpec& spec) {
  if (!spec.lse || spec.split || spec.mates || spec.bias || spec.dropout || spec.general) return {};
  if (spec.value_dim != spec.head_dim) return {};
  switch (spec.head_dim) {
    case 64:
      return {{128, 128, {2500, 2230}}, {128, 160, {4000, 2480}}};
    case 128:
      return {{128, 128}};
    case 256:
      return {{64, 64}};
    default:
      return {};
  }
}

// Without features. At 64 columns there is too little to fetch.
std::vector<Tile> mates_tiles_of(const HopperSpec& spec) {
  if (spec.bias || spec.dropout || spec.general) return {};
  const bool sums = !spec.lse;  // as columns of O
  if (sums && (spec.element != kernel::Element::bf16 || spec.head_dim != 128)) return {};
  switch (spec.head_dim) {
    case 64:
      return {};
    case 96:
      return {{128, 128, {5200, 2610}}};
    case 128:
      return {sums ? Tile{128, 128, {4000, 2545}} : Tile{128, 128, {3900, 2640}}};
    case 192:
      return {{128, 96, {5800, 2970}}};
    default:
      return {{128, 64, {8200, 2390}}, {128, 80, {10400, 2930}}};
  }
}

// docs/kernels/forward_hopper.md has the measurements. Features have rows where their registers suffice and
// portable ones are slower.
std::vector<Tile> tiles_of(const HopperSpec& spec) {
  if (kernel::is_eighths(spec)) return eighth_tiles_of(spec);
  if (spec.split) return split_tiles_of(spec);
  if (spec.mates) return mates_tiles_of(spec);
  if (spec.bias) {
    if (spec.dropout) return {};
    return {{128, spec.head_dim > 128 ? 64 : 128}};
  }
  if (spec.general || spec.bytes) {
    return {{128, spec.head_dim == 256 ? 64 : spec.head_dim == 192 ? 96 : 128}};
  }
  if (spec.dropout) {
    switch (spec.head_dim) {
      case 64:
      case 96:
      case 128:
        return {{128, 128}};
      case 192:
        return {{128, spec.value_dim == 128 ? 96 : 80}};
      default:  // f16 would spill
        return spec.element == kernel::Element::bf16 ? std::vector<Tile>{{128, 64}}
                                                     : std::vector<Tile>{};
    }
  }
  if (!spec.lse) {
    // f16 has no room for weights that nobody adds up; elsewhere registers or shared memory do not suffice.
    if (spec.element != kernel::Element::bf16) return {};
    if (spec.head_dim == 64) return {{128, 128, {2700, 1785}}, {192, 112, {3800, 2235, 2440}}};
    return spec.head_dim == 128 ? std::vector<Tile>{{128, 128, {5550, 2595}}} : std::vector<Tile>{};
  }
  switch (spec.head_dim) {
    case 64:
      return {{128, 128, {2800, 1990}}, {192, 112, {5300, 2235, 2500}}};
    case 96:
    case 128:
      return {{128, 128, {5700, 2665}}};
    case 192:
      return {{128, 96, {7500, 3000}}};
    default:
      return {{128, 64, {9300, 2450}}, {128, 80, {10300, 2980}}};
  }
}

}  // namespace

int box_keys(const HopperSpec& spec, std::int64_t page_size) {
  return page_size > 0 ? static_cast<int>(std::gcd(page_size, std::int64_t{spec.keys}))
                       : kernel::fetched_keys(spec);
}

TileCycles tile_cycles(const HopperSpec& spec) {
  for (const Tile& tile : tiles_of(spec)) {
    if (tile.queries == spec.queries && tile.keys == spec.keys) return tile.cycles;
  }
  return {};
}

std::vector<HopperSpec> hopper_forward_rows(DType dtype) {
  std::vector<HopperSpec> rows;
  if (dtype == DType::f32) return rows;
  for (const Dims& dims : kDims) {
    for (const FeatureSet& set : kFeatureSets) {
      HopperSpec spec;
      spec.element = kernel_element(dtype);
      spec.head_dim = dims.head;
      spec.value_dim = dims.value;
      spec.bias = set.bias;
      spec.dropout = set.dropout;
      spec.general = set.general;
      spec.stages = 2;
      for (const RowKind kind : {kWithoutLse, kMatesWithoutLse, kWithLse, kMates, kSplit, kBytes}) {
        spec.lse = kind != kWithoutLse && kind != kMatesWithoutLse;
        if (!spec.lse && features_name(spec) != features_name(HopperSpec{})) continue;
        spec.mates = kind == kMates || kind == kMatesWithoutLse;
        spec.split = kind == kSplit;
        spec.bytes = kind == kBytes;
        if (spec.bytes && !(spec.dropout && !spec.bias)) continue;
        for (const Tile& tile : tiles_of(spec)) {
          spec.queries = tile.queries;
          spec.keys = tile.keys;
          // A warpgroup's products of eighths take a fifth of its time, and meet the other's softmax by themselves; with
          // dropout, drawing hides them, but where there is less of it for a product turns are faster.
          spec.turns = kernel::consumers_of(spec) > 1 && !kernel::is_eighths(spec) &&
                       !(spec.dropout && spec.head_dim > (spec.bytes ? 192 : 64));
          rows.push_back(spec);
        }
      }
    }
  }
  return rows;
}

std::string hopper_id(const HopperSpec& spec) {
  const std::string value =
      spec.value_dim == spec.head_dim ? "" : "v" + std::to_string(spec.value_dim);
  return fmt::format("sm90a.{}.d{}{}.{}{}.q{}k{}", name_of(spec.element), spec.head_dim, value,
                     spec.split   ? "split"
                     : spec.bytes ? "fa2dropout"
                     : spec.lse   ? features_name(spec)
                                  : "nolse",
                     spec.mates ? ".mates" : "", spec.queries, spec.keys);
}

}  // namespace attune
