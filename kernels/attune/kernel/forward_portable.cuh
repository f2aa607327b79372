// Attention forward on tensor cores of any GPU from sm_75 on (and on none where a type has none).
//
// Schedule. A block of threads owns `queries` rows of one head; a warp owns 16 or 32 of them from Q
// to O, so that warps share nothing but the tiles of K and V. Per block of keys: one barrier, the
// copies of the next K and V start, S = Q K^T, softmax in registers, O += P V. A warp skips blocks
// that none of its rows attends to and masks only those that some row does not attend to.
//
// Softmax. Rows keep a reference m from which P, its sum and O count; where P has float32's range it
// follows the maximum only when it must (part/softmax.cuh). Sums of a row stay spread over its four
// lanes until the end.
//
// Shared memory: [Q: queries][stages x K: keys][stages x V: keys], rows of head_dim elements
// (forward_portable_layout.h). Registers of a thread: O: rows/16 * head_dim/2, S: rows/16 * keys/2
// floats, rows being a warp's; at head_dim 128, 32 rows and 48 keys that is 128 + 48. Beyond, two warps
// can share rows: forward_portable_paired.cuh.
#pragma once

#include <attune/kernel/forward_portable_paired.cuh>
#include <attune/kernel/forward_portable_wide.cuh>

namespace attune::kernel {

template <PortableSpec kSpec>
struct BoundedForward {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  using W = WarpShape<kSpec.element, kSpec.queries, kSpec.keys, kSpec.warps, kSpec.head_dim,
                      kSpec.paired ? 2 : 1>;
  static constexpr int kThreads = threads_of(kSpec);
  static constexpr bool kTerms = kSpec.bias || kSpec.general;
  using State = Softmax<W, units_of(kSpec)>;
  static constexpr bool kWide = State::kWide;
  static constexpr PortableForwardShared kShared = forward_portable_shared(kSpec);

  static __device__ __forceinline__ void run(const ForwardParams& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    auto& facts = *reinterpret_cast<TileFacts*>(shared + kShared.facts);
    const u32 q_tile = shared_address(shared);
    if (!begin_tile<kSpec, W>(p, facts)) return;

    Products<kSpec.arch, W> products(q_tile, q_tile + kShared.p);
    const WarpPair<W> pair(q_tile + kShared.exchange);
    State softmax(p, State::kAtFirst);
    typename W::Values o;
    for (;;) {
      clear_fragments(o);
      if constexpr (W::kPaired) {
        PairedWalk<kSpec, W>::run(p, facts, q_tile, products, softmax, pair, o);
      } else {
        walk_keys(p, facts, q_tile, products, softmax, o);
      }
      if (!kWide || softmax.careful == State::kAlways || !__syncthreads_or(softmax.overflowed())) {
        break;
      }
      softmax = State(p, State::kAlways);
    }

    const TilePlace& tile = facts.place;
    const Sequence& seq = facts.seq;
    softmax.sum_up(pair);
    softmax.finish(p, tile.h);
    write_lse<W>(p, seq, tile, softmax);
    const u32 bad = doubtful_rows<W, Products<kSpec.arch, W>::kKeepsInfinities>(o, softmax);
    scale_values<W>(o, softmax, kSpec.dropout ? p.dropout.keep_scale : 1.0f);
    write_values<kSpec.element, kSpec.aligned, W>(p, seq, tile, o, q_tile);
    if (pair.any(bad != 0)) {
      // Over this warp's rows of Q, where O has just left.
      const u32 rows = q_tile + threadIdx.x / 32 * (W::kWarpRows / W::kSharers) * W::QTile::kPanel;
      exact_rows<kSpec, W>(p, facts, softmax, bad, rows);
    }
  }

  // O and the softmax's state of this tile.
  static __device__ __forceinline__ void walk_keys(const ForwardParams& p, const TileFacts& facts,
                                                   u32 q_tile, Products<kSpec.arch, W>& products,
                                                   State& softmax, typename W::Values& o) {
    const WarpPair<W> alone(0);
    const TilePlace tile = facts.place;
    const Sequence seq = facts.seq;
    const MaskSides sides = facts.sides;
    const int first = tile.block * W::kQueries;
    const int count = smaller(W::kQueries, seq.sq - first);
    const u32 k_tile = q_tile + kShared.q, v_tile = k_tile + kSpec.stages * kShared.k;
    const Range reach{sides.begin(0), sides.end(count - 1)};
    const QueryRows<const Bits> q_rows(p.q, tile.b, seq.q_start, tile.h);
    const auto load_keys = [&](int j, int stage) {
      const KeyRows<Bits, kSpec.general> k_rows(p, p.k, facts.k, facts.place.b);
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::KTile, W::kKeys, W::kWidth>(
          k_tile + stage * kShared.k, k_rows, p.k.d_stride, p.d, j, reach.end);
      const KeyRows<Bits, kSpec.general> v_rows(p, p.v, facts.v, facts.place.b);
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::KTile, W::kKeys, W::kWidth>(
          v_tile + stage * kShared.v, v_rows, p.v.d_stride, p.dv, j, reach.end);
      commit_copies();
    };

    const int begin = reach.begin / W::kKeys * W::kKeys;
    // Without a key, late copies of Q would race with O, which leaves through its tile.
    if (begin < reach.end) {
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::QTile, W::kQueries, W::kWidth>(
          q_tile, q_rows, p.q.d_stride, p.d, first, seq.sq);
      load_keys(begin, 0);
    }

    const ScoreTerms terms(p, seq, tile.b, tile.h, kSpec.bias, kSpec.general);
    for (int j = begin, stage = 0; j < reach.end; j += W::kKeys) {
      const WarpRows<W> rows(facts, j);
      wait_for_copies<0>();
      __syncthreads();
      if (j == begin) products.take_queries();
      if constexpr (kSpec.stages > 1) {
        if (j + W::kKeys < reach.end) load_keys(j + W::kKeys, stage ^ 1);
      }
      if (rows.meet) {
        typename W::Scores s;
        [[maybe_unused]] BiasTile<W> bias;
        const int row = first + thread_row<W>(0, 0);
        if constexpr (kSpec.bias) bias.load(terms, row, seq.sq - 1, j, seq.sk);
        products.scores(s, k_tile + stage * kShared.k);
        if constexpr (kTerms) bias.apply(s, terms, row, j);
        if (!rows.cover) apply_mask<W>(s, facts.sides, j);
        const auto rescale = [&](int m, int half, float alpha) {
          State::multiply(o, m, half, alpha);
        };
        if (!kWide || softmax.careful != State::kNever) softmax.settle(s, alone, rescale);
        const float top = softmax.powers(s);
        if constexpr (kSpec.dropout) drop<W>(s, p, tile.b, tile.h, row, j);
        products.add_values(o, s, v_tile + stage * kShared.v);
        if (kWide && alone.any(top > State::kLift)) softmax.lift(alone, rescale);
      }
      if constexpr (kSpec.stages > 1) {
        stage ^= 1;
      } else {
        __syncthreads();
        if (j + W::kKeys < reach.end) load_keys(j + W::kKeys, 0);
      }
    }
    wait_for_copies<0>();
  }
};

template <PortableSpec kSpec>
__device__ __forceinline__ void forward_portable(const ForwardParams& params) {
  if constexpr (kSpec.head_dim == 0) {
    WideForward<kSpec>::run(params);
  } else {
    BoundedForward<kSpec>::run(params);
  }
}

}  // namespace attune::kernel
