#include "spec/hopper_table.h"

#include <fmt/format.h>

#include <array>

#include "spec/features.h"

namespace attune {

namespace {

using kernel::HopperSpec;

struct Dims {
  int head, value;
};
constexpr std::array kDims = {Dims{64, 64},   Dims{96, 96},   Dims{128, 128},
                              Dims{192, 128}, Dims{192, 192}, Dims{256, 256}};

struct Tile {
  int queries, keys, stages;
};

// docs/kernels/forward_hopper.md counts them.
Tile tile_of(const HopperSpec& spec) {
  const bool featured = spec.bias || spec.dropout || spec.general;
  switch (spec.head_dim) {
    case 64:
      return featured ? Tile{128, 128, 2} : Tile{192, 128, 2};
    case 96:
    case 128:
      return {128, featured ? 64 : 128, 2};
    case 192:
      return {128, featured ? 64 : 96, 2};
    default:
      return {128, 64, 2};
  }
}

}  // namespace

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
      const Tile tile = tile_of(spec);
      spec.queries = tile.queries;
      spec.keys = tile.keys;
      spec.stages = tile.stages;
      spec.turns = true;
      rows.push_back(spec);
    }
  }
  return rows;
}

std::string hopper_id(const HopperSpec& spec) {
  const std::string value =
      spec.value_dim == spec.head_dim ? "" : "v" + std::to_string(spec.value_dim);
  return fmt::format("sm90a.{}.d{}{}.{}.q{}k{}", name_of(spec.element), spec.head_dim, value,
                     features_name(spec), spec.queries, spec.keys);
}

}  // namespace attune
