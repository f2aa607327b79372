// Shared memory of the Hopper forward kernel and the boxes that the copy engine fills, for host and
// device alike.
#pragma once

#include <attune/kernel/forward_portable_layout.h>
#include <attune/spec/hopper.h>

namespace attune::kernel {

// Rows lie in panels, [rows][128 bytes]; columns past the tensor's are zeros.
constexpr int kPanelBytes = 128;
constexpr int panel_columns(Element element) { return kPanelBytes / bytes_of(element); }
constexpr int panels_of(Element element, int columns) {
  return (columns + panel_columns(element) - 1) / panel_columns(element);
}

// Tiles are told of in turn in so many places, ahead of the one whose results are written, with some words for
// each warpgroup that computes. Flags for each of so many tiles that a block of threads computes and for all.
constexpr int kHopperTileBytes = kTileFactsBytes + 48, kHopperTiles = 8, kGroupBlocksBytes = 32;
constexpr int kTileScalesBytes = 16;
constexpr int hopper_tile_bytes(const HopperSpec& spec) {
  return kHopperTileBytes + consumers_of(spec) * kGroupBlocksBytes +
         (is_eighths(spec) ? kTileScalesBytes : 0);
}
constexpr int kTileFlags = 512, kTileFlagsBytes = kTileFlags + 16;

// Tiles whose sums overflowed are walked once more, with references that follow the maximum; rows that hold what is
// not finite then are computed key by key.
constexpr int kFirstRound = 0, kCarefulRound = 1, kExactRound = 2, kRounds = 3;

// [query parts x 64 rows of Q][stages x K][stages x V][stages x bias][barriers][tiles][flags of the later rounds]
// [m and l of each row], in bytes. Of eighths V is what products read, [panels of 128 keys][columns][128 bytes], and in
// the place of a bias, which they have none of, lies V as it arrives.
struct HopperShared {
  int query_parts;
  int query_bytes, key_bytes, value_bytes, bias_bytes;  // of 64 queries; of one tile
  int value_stride;  // from one tile to the next: behind it lie columns of ones, if they are asked for
  int k, v, bias, barriers, tiles, flags, sums, total;  // where they lie; Q comes first
};

constexpr HopperShared forward_hopper_shared(const HopperSpec& spec, int query_parts) {
  const int row = panels_of(spec.element, spec.head_dim) * kPanelBytes;
  const int value_row = panels_of(spec.element, spec.value_dim) * kPanelBytes;
  const int queries = kGroupRows * row, keys = spec.keys * row;
  const int arrived = spec.keys * value_row, key_panels = panels_of(spec.element, spec.keys);
  const int values = is_eighths(spec) ? key_panels * spec.value_dim * kPanelBytes : arrived;
  const int bias_tile = is_eighths(spec) ? arrived
                        : spec.bias      ? key_panels * spec.queries * kPanelBytes
                                         : 0;
  const int k = query_parts * queries, v = k + spec.stages * keys;
  const int value_stride = values + (spec.lse ? 0 : spec.keys * kPanelBytes);
  const int bias = v + spec.stages * value_stride, barriers = bias + spec.stages * bias_tile;
  const int count = 1 + kHopperTiles + query_parts + 2 * consumers_of(spec) + 6 * spec.stages;
  const int tiles = barriers + (count + 1) / 2 * 16;
  const int flags = tiles + kHopperTiles * hopper_tile_bytes(spec);
  const int sums = flags + (kRounds - 1) * kTileFlagsBytes;
  const int total = sums + (spec.split ? spec.queries * 8 : 0);
  return {query_parts, queries, keys,     values, bias_tile, value_stride, k,
          v,           bias,    barriers, tiles,  flags,     sums,         total};
}

// What a block of a cluster leaves for the others takes the place of K and V: O in f32, [queries][value_dim]; m
// and l of each row lie in `sums`. In the place of Q come facts of the rows that it combines, as many bytes each.
constexpr int kCombinedRowBytes = 48;

// Twice a tile's queries where there is room, or as much more as there is: the next tile's then come while this
// one's are in use.
constexpr HopperShared forward_hopper_shared(const HopperSpec& spec) {
  constexpr int kMost = 232448;  // that a block of threads may have, CUDA C++ Programming Guide
  const int groups = consumers_of(spec);
  if (spec.split) return forward_hopper_shared(spec, groups);
  int parts = 2 * groups;
  while (parts > groups && forward_hopper_shared(spec, parts).total > kMost) --parts;
  return forward_hopper_shared(spec, parts);
}

constexpr int forward_hopper_shared_bytes(const HopperSpec& spec) {
  return forward_hopper_shared(spec).total;
}

}  // namespace attune::kernel
