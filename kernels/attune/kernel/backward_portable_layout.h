// Shared memory and workspace of the portable backward kernels, for host and device alike.
#pragma once

#include <attune/spec/portable.h>

namespace attune::kernel {

// Without a bound on the head dim, rows pass through shared memory this many elements at a time.
constexpr int kBackwardChunk = 64;

constexpr int backward_width(const PortableSpec& spec) {
  return spec.head_dim == 0 ? kBackwardChunk : spec.head_dim;
}

// The keys kernel: [K][V][stages x Q][stages x dO][P][dS][stages x RowFacts]
// [a float a warp][what a tile is]. Without a
// bound K, V, Q and dO are chunks, and there is one stage.
constexpr int kKeyFactsBytes = 104;

struct BackwardShared {
  int key_bytes, query_bytes;               // of one tile of K or V, of Q or dO
  int row_bytes;                            // of the RowFacts of a tile of queries
  int k, v, q, o, p, s, rows, sums, facts;  // where they lie
  int total;
};

constexpr BackwardShared backward_portable_shared(const PortableSpec& spec) {
  const int row = backward_width(spec) * bytes_of(spec.element);
  const int keys = spec.keys * row, queries = spec.queries * row;
  const int weights = spec.queries * spec.keys * bytes_of(spec.element);
  const int q = 2 * keys, o = q + spec.stages * queries, p = o + spec.stages * queries;
  const int rows = p + 2 * weights, sums = rows + spec.stages * spec.queries * 8;
  const int facts = sums + spec.warps * 4;
  return {keys, queries, spec.queries * 8,      0, keys, q, o, p, p + weights, rows,
          sums, facts,   facts + kKeyFactsBytes};
}

constexpr int backward_portable_shared_bytes(const PortableSpec& spec) {
  return backward_portable_shared(spec).total;
}

// The bias kernel: [Q][K][dO][V][RowFacts]; without a bound, chunks of a pair. The others need none.
struct BiasShared {
  int keys;  // where K lies after Q, V after dO
  int pair;  // where dO lies
  int rows, total;
};

constexpr BiasShared backward_bias_shared(const PortableSpec& spec) {
  const BackwardShared all = backward_portable_shared(spec);
  const int pair = all.query_bytes + all.key_bytes;
  const int rows = spec.head_dim == 0 ? pair : 2 * pair;
  return {all.query_bytes, pair, rows, rows + all.row_bytes};
}

constexpr int backward_bias_shared_bytes(const PortableSpec& spec) {
  return backward_bias_shared(spec).total;
}

// Floats that dQ's sums keep for a block of queries and a head, for d up to 65,536; likewise dK's and
// dV's for a block of keys where they do not fit into registers.
constexpr int backward_columns(const PortableSpec& spec, int d) {
  if (spec.head_dim != 0) return spec.head_dim;
  return (d + kBackwardChunk - 1) / kBackwardChunk * kBackwardChunk;
}

// Elements of a bias gradient that a block of threads of the finish kernel adds up.
constexpr int kBiasSumElements = 1024;

}  // namespace attune::kernel
