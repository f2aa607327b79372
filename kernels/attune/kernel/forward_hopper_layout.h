// Shared memory of the Hopper forward kernel and the boxes that the copy engine fills, for host and
// device alike.
#pragma once

#include <attune/kernel/forward_portable_layout.h>
#include <attune/spec/hopper.h>

namespace attune::kernel {

// Rows lie in panels of 64 elements, [rows][128 bytes]; columns past the tensor's are zeros.
constexpr int kPanelColumns = 64, kPanelBytes = 128;
constexpr int panels_of(int dim) { return (dim + kPanelColumns - 1) / kPanelColumns; }

// [Q][stages x K][stages x V][barriers][what a tile is], in bytes.
struct HopperShared {
  int query_bytes, key_bytes, value_bytes;  // of one tile
  int k, v, barriers, facts;                // where they lie; Q comes first
  int total;
};

constexpr HopperShared forward_hopper_shared(const HopperSpec& spec) {
  const int row = panels_of(spec.head_dim) * kPanelBytes;
  const int value_row = panels_of(spec.value_dim) * kPanelBytes;
  const int queries = spec.queries * row, keys = spec.keys * row, values = spec.keys * value_row;
  const int v = queries + spec.stages * keys, barriers = v + spec.stages * values;
  const int facts = barriers + (1 + 4 * spec.stages) * 8;
  return {queries, keys, values, queries, v, barriers, facts, facts + kTileFactsBytes};
}

constexpr int forward_hopper_shared_bytes(const HopperSpec& spec) {
  return forward_hopper_shared(spec).total;
}

}  // namespace attune::kernel
