// Shared memory of the Hopper forward kernel and the boxes that the copy engine fills, for host and
// device alike.
#pragma once

#include <attune/kernel/forward_portable_layout.h>
#include <attune/spec/hopper.h>

namespace attune::kernel {

// Rows lie in panels of 64 elements, [rows][128 bytes]; columns past the tensor's are zeros.
constexpr int kPanelColumns = 64, kPanelBytes = 128;
constexpr int panels_of(int dim) { return (dim + kPanelColumns - 1) / kPanelColumns; }

// Two descriptions of tiles, a flag for each of so many tiles that a block of threads computes and one for all, and of
// a warp, words for rows that are computed again.
constexpr int kHopperTileBytes = kTileFactsBytes + 16;
constexpr int kTileFlags = 512;
constexpr int kRowScratchBytes = 16 * 8;

// [Q][stages x K][stages x V][barriers][tiles][flags][scratch], in bytes.
struct HopperShared {
  int query_bytes, key_bytes, value_bytes;           // of one tile
  int k, v, barriers, tiles, flags, scratch, total;  // where they lie; Q comes first
};

constexpr HopperShared forward_hopper_shared(const HopperSpec& spec) {
  const int row = panels_of(spec.head_dim) * kPanelBytes;
  const int value_row = panels_of(spec.value_dim) * kPanelBytes;
  const int queries = spec.queries * row, keys = spec.keys * row, values = spec.keys * value_row;
  const int v = queries + spec.stages * keys, barriers = v + spec.stages * values;
  const int tiles = barriers + (2 + 4 * spec.stages) * 8;
  const int flags = tiles + 2 * kHopperTileBytes, scratch = flags + kTileFlags + 16;
  const int total = scratch + consumers_of(spec) * 4 * kRowScratchBytes;
  return {queries, keys, values, queries, v, barriers, tiles, flags, scratch, total};
}

constexpr int forward_hopper_shared_bytes(const HopperSpec& spec) {
  return forward_hopper_shared(spec).total;
}

}  // namespace attune::kernel
