// What is fixed when a kernel of the Hopper family is compiled; as spec/portable.h.
#pragma once

#include <attune/spec/portable.h>

namespace attune::kernel {

// One row of the table. Masks, windows, lengths, packed and paged sequences, grouped heads, sinks and the LSE
// are in every kernel.
struct HopperSpec {
  Element element = Element::bf16;  // f16, bf16 or f8e4m3
  int head_dim = 128;               // largest d
  int value_dim = 128;              // largest dv, at most head_dim
  bool bias = false;
  bool dropout = false;
  bool bytes = false;    // of dropout: FA2's stream, where it is cuRAND's otherwise
  bool general = false;  // softcap, ALiBi, any scale
  bool lse = true;       // may be asked for; without it, rows' sums are one more column of O
  int queries = 128, keys = 128;  // a tile; 64 queries a warpgroup
  int stages = 2;                 // buffers of K and of V
  bool turns = false;  // warpgroups issue products in turns, so that one's softmax meets another's
  // The blocks of threads of a cluster share the keys of one tile, whose rows may be of several query heads of a
  // group. Otherwise a block takes tile after tile of one head.
  bool split = false;
  // The two blocks of threads of a cluster, mates, compute tiles that attend to the same keys, neighbours of a head
  // or of two heads of a group, and each fetches half of them for both. Not for pages or bias.
  bool mates = false;
  friend constexpr bool operator==(const HopperSpec&, const HopperSpec&) = default;
};

constexpr bool takes_pages(const HopperSpec& spec) { return !spec.mates; }

// Rows of a block of keys that a block of threads fetches.
constexpr int fetched_keys(const HopperSpec& spec) { return spec.keys / (spec.mates ? 2 : 1); }

// Products of 8 bits take V by columns alone, so that a warp transposes it; P is rounded to E4M3, and the heads of
// q, k and v may have scales.
constexpr bool is_eighths(const HopperSpec& spec) { return spec.element == Element::f8e4m3; }

// The largest softcap. Its tanh is 2^-22 wrong, which times the cap is what scores may be.
constexpr float kMostHopperSoftcap = 64.0f;

// Columns of O P V, with those that hold rows' sums.
constexpr int product_columns(const HopperSpec& spec) {
  return spec.value_dim + (spec.lse ? 0 : 8);
}

// Warpgroups that compute, so many rows each; one more copies.
constexpr int kGroupRows = 64;
constexpr int consumers_of(const HopperSpec& spec) { return spec.queries / kGroupRows; }
constexpr int threads_of(const HopperSpec& spec) { return (consumers_of(spec) + 1) * 128; }
// For whose registers a multiprocessor has room. A product of 256 columns needs more than 128 of a thread from the
// launch on, says ptxas.
constexpr int blocks_of(const HopperSpec& spec) {
  return consumers_of(spec) == 1 && spec.value_dim < 256 ? 2 : 1;
}

// Warps that transpose eighths' values: the idle one, and that which has them fetched.
constexpr int kTransposers = 2;

constexpr int kMostSplits = 8;  // blocks of a cluster that every device takes

}  // namespace attune::kernel
