// Shared memory of the portable forward kernels, in bytes, for host and device alike.
#pragma once

#include <attune/spec/portable.h>

namespace attune::kernel {

// How wide a piece of q, k and v lies in shared memory at a time: the whole bound, or this many
// elements after each other when there is none.
constexpr int kWideChunk = 64;

constexpr int shared_width(const PortableSpec& spec) {
  return spec.head_dim == 0 ? kWideChunk : spec.head_dim;
}

// [Q][stages x K][stages x V][P][exchange][what a tile is]. The last saves registers in the main loop.
// Without a bound Q, K and V are chunks. Only paired warps have P there, and a float a warp and row.
constexpr int kTileFactsBytes = 80;

struct PortableForwardShared {
  int q, k, v;             // bytes of one buffer
  int p, exchange, facts;  // where they lie
  int total;
};

constexpr PortableForwardShared forward_portable_shared(const PortableSpec& spec) {
  const int row = shared_width(spec) * bytes_of(spec.element);
  const int q = spec.queries * row, k = spec.keys * row;
  const int p = q + 2 * spec.stages * k;
  const int exchange = p + (spec.paired ? spec.queries * spec.keys * bytes_of(spec.element) : 0);
  const int facts = exchange + (spec.paired ? spec.queries * 2 * 4 : 0);
  return {q, k, k, p, exchange, facts, facts + kTileFactsBytes};
}

// Floats of o that a tile without a bound keeps in global memory, for any dv up to 65,536.
constexpr long long wide_accumulator_floats(const PortableSpec& spec, int dv) {
  return static_cast<long long>(spec.queries) * ((dv + kWideChunk - 1) / kWideChunk * kWideChunk);
}

constexpr int forward_portable_shared_bytes(const PortableSpec& spec) {
  return forward_portable_shared(spec).total;
}

}  // namespace attune::kernel
