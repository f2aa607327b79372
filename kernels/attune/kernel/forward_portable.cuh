// Attention forward on tensor cores of any GPU from sm_75 on (and on none where a type has none).
//
// Schedule. A block of threads owns `queries` rows of one head; a warp owns 16 or 32 of them from Q
// to O, so that warps share nothing but the tiles of K and V. Per block of keys: one barrier, the
// copies of the next K and V start, S = Q K^T, softmax in registers, O += P V. A warp skips blocks
// that none of its rows attends to and masks only those that some row does not attend to.
//
// Softmax. Rows keep a reference m, at most the running maximum and at least 2^8 below it, so that O is
// rescaled only when a maximum grows past that; P and the sum share m, so the result is exact. Sums
// of a row stay spread over its four lanes until the end.
//
// Shared memory: [Q: queries][stages x K: keys][stages x V: keys], rows of head_dim elements
// (forward_portable_layout.h). Registers of a thread: O: rows/16 * head_dim/2, S: rows/16 * keys/2
// floats, rows being a warp's; at head_dim 128, 32 rows and 64 keys that is 128 + 64.
#pragma once

#include <attune/kernel/forward_portable_wide.cuh>

namespace attune::kernel {

template <PortableForward kSpec>
struct BoundedForward {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  using W = WarpShape<kSpec.element, kSpec.queries, kSpec.keys, kSpec.warps, kSpec.head_dim,
                      kSpec.paired>;
  static constexpr int kThreads = threads_of(kSpec);
  static constexpr bool kTerms = kSpec.bias || kSpec.general;
  static constexpr bool kWide = Softmax<W, kTerms>::kWide;
  static constexpr PortableForwardShared kShared = forward_portable_shared(kSpec);

  static __device__ __forceinline__ void run(const ForwardParams& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    auto& facts = *reinterpret_cast<TileFacts*>(shared + kShared.facts);
    static_assert(sizeof(TileFacts) <= kTileFactsBytes);
    const u32 q_tile = shared_address(shared);
    if (!begin_tile<kSpec, W>(p, facts)) return;

    Products<kSpec.arch, W> products(q_tile, q_tile + kShared.p);
    const WarpPair<W> pair(q_tile + kShared.exchange);
    Softmax<W, kTerms> softmax(p);
    typename W::Values o;
    for (bool again = false;; again = true) {
      softmax = Softmax<W, kTerms>(p);
      clear_fragments(o);
      walk_keys(p, facts, q_tile, products, softmax, pair, o, again);
      if (!kWide || again || !__syncthreads_or(softmax.overflowed())) break;
    }

    const TilePlace& tile = facts.place;
    const Sequence& seq = facts.seq;
    softmax.finish(p, tile.h, pair);
    write_lse<W>(p, seq, tile, softmax);
    const u32 bad = non_finite_rows<W>(o, softmax);
    scale_values<W>(o, softmax, kSpec.dropout ? p.dropout.keep_scale : 1.0f);
    write_values<kSpec.element, kSpec.aligned, W>(p, seq, tile, o, q_tile);
    if (pair.any(bad != 0)) {
      // Over this warp's rows of Q, where O has just left.
      const u32 rows = q_tile + threadIdx.x / 32 * (W::kWarpRows / W::kSharers) * W::QTile::kPanel;
      exact_rows<kSpec, W>(p, seq, tile, softmax, bad, rows);
    }
  }

  // O and the softmax's state of this tile.
  static __device__ __forceinline__ void walk_keys(const ForwardParams& p, const TileFacts& facts,
                                                   u32 q_tile, Products<kSpec.arch, W>& products,
                                                   Softmax<W, kTerms>& softmax,
                                                   const WarpPair<W>& pair, typename W::Values& o,
                                                   bool again) {
    const TilePlace tile = facts.place;
    const Sequence seq = facts.seq;
    const MaskSides sides = facts.sides;
    const int first = tile.block * W::kQueries;
    const int count = smaller(W::kQueries, seq.sq - first);
    const u32 k_tile = q_tile + kShared.q, v_tile = k_tile + kSpec.stages * kShared.k;
    const Range reach{sides.begin(0), sides.end(count - 1)};
    const QueryRows<const Bits> q_rows(p.q, tile.b, seq.q_start, tile.h);
    constexpr int kPieces = W::kPaired ? W::kKeys / 16 : 1;
    constexpr int kLoaders = W::kPaired ? kThreads / 2 : kThreads;
    const auto load_keys = [&](bool values, int j, int stage, int piece = 0) {
      const Operand& x = values ? p.v : p.k;
      const KeyRows<Bits, kSpec.general> k_rows(p, x, values ? facts.v : facts.k, facts.place.b);
      load_rows<kSpec.element, kSpec.aligned, kLoaders, typename W::KTile, W::kKeys, W::kWidth,
                kPieces>((values ? v_tile : k_tile) + stage * kShared.k, k_rows, x.d_stride,
                         values ? p.dv : p.d, j, reach.end, piece);
    };
    const auto load_all = [&](const auto& load) {
#pragma unroll 1
      for (int piece = 0; piece < kPieces; ++piece) load(piece);
    };
    const auto rows_of_warp = [&] {
      const int there = facts.seq.sq - facts.place.block * W::kQueries;
      return WarpRows(W::first_row(), W::kWarpRows, smaller(W::kQueries, there), facts.sides);
    };
    const ScoreTerms terms(p, seq, tile.b, tile.h, kSpec.bias, kSpec.general);
    const int row = first + thread_row<W>(0, 0);
    const auto take_scores = [&](typename W::Scores& s, int j, int stage, bool covered) {
      [[maybe_unused]] BiasTile<W> bias;
      const int key = j + W::half() * W::kWarpKeys;
      if constexpr (kSpec.bias) bias.load(terms, row, seq.sq - 1, key, seq.sk);
      products.scores(s, k_tile + stage * kShared.k);
      if constexpr (kTerms) bias.apply(s, terms, row, key);
      if (!covered) apply_mask<W>(s, facts.sides, key);
      if (!kWide || softmax.careful) {
        float alphas[W::kRowTiles][2];
        if (softmax.settle(s, alphas, again, pair)) softmax.multiply(o, alphas);
      }
    };
    const auto take_values = [&](typename W::Scores& s, int j, int stage, const auto& between) {
      const float top = softmax.powers(s);
      if constexpr (kSpec.dropout) {
        apply_dropout<W>(s, p, tile.b, tile.h, row, j + W::half() * W::kWarpKeys);
      }
      bool large = kWide && top > Softmax<W, kTerms>::kLift;
      if constexpr (W::kPaired) {
        products.share(s);
        large = pair.any(large);
        products.add_values(o, s, v_tile + stage * kShared.v, between);
      } else {
        products.add_values(o, s, v_tile + stage * kShared.v);
      }
      if constexpr (kWide && !W::kPaired) large = pair.any(large);
      if (large) softmax.lift(o, pair);
    };

    const int begin = reach.begin / W::kKeys * W::kKeys;
    load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::QTile, W::kQueries, W::kWidth>(
        q_tile, q_rows, p.q.d_stride, p.d, first, seq.sq);
    if constexpr (W::kPaired) {
      // Two turns a block, S and then P V; half of the warps are a turn behind, so that one half's
      // softmax falls into the other's products. Who multiplies P and V also starts the copies of
      // the next block: K in even turns, V in odd ones; each is there two turns later.
      static_assert(kSpec.stages == 2 && kSpec.warps % 4 == 0);
      const int behind = static_cast<int>(threadIdx.x) / kLoaders;
      const auto load_piece = [&](int j, int stage, int piece) {
        int half = behind;
        asm volatile("" : "+r"(half));  // or what follows from it takes registers all along
        load_keys(half == 0, j, stage, piece);
      };
      // The first block: the half that is behind brings K, the other V.
      if (begin < reach.end) load_all([&](int piece) { load_piece(begin, 0, piece); });
      commit_copies();
      wait_for_copies<0>();
      if (behind != 0) {
        __syncthreads();
        load_all([&](int piece) { load_piece(begin + W::kKeys, 1, piece); });
      }
      commit_copies();
#pragma unroll 1
      for (int j = begin, stage = 0; j < reach.end; j += W::kKeys, stage ^= 1) {
        typename W::Scores s;
        wait_for_copies<1>();
        __syncthreads();
        const WarpRows rows = rows_of_warp();
        const bool work = rows.meet(j, j + W::kKeys);
        if (work) take_scores(s, j, stage, rows.cover(j, j + W::kKeys));
        wait_for_copies<0>();
        __syncthreads();
        const auto load_next = [&](int piece) {
          load_piece(j + (1 + behind) * W::kKeys, stage ^ 1 ^ behind, piece);
        };
        if (work) {
          take_values(s, j, stage, load_next);
        } else {
          load_all(load_next);
        }
        commit_copies();
      }
      if (behind == 0) __syncthreads();
    } else {
      const auto load_both = [&](int j, int stage) {
        load_keys(false, j, stage);
        load_keys(true, j, stage);
        commit_copies();
      };
      if (begin < reach.end) load_both(begin, 0);
      const WarpRows rows = rows_of_warp();
      for (int j = begin, stage = 0; j < reach.end; j += W::kKeys) {
        wait_for_copies<0>();
        __syncthreads();
        if (j == begin) products.take_queries();
        if constexpr (kSpec.stages > 1) {
          if (j + W::kKeys < reach.end) load_both(j + W::kKeys, stage ^ 1);
        }
        if (rows.meet(j, j + W::kKeys)) {
          typename W::Scores s;
          take_scores(s, j, stage, rows.cover(j, j + W::kKeys));
          take_values(s, j, stage, 0);
        }
        if constexpr (kSpec.stages > 1) {
          stage ^= 1;
        } else {
          __syncthreads();
          if (j + W::kKeys < reach.end) load_both(j + W::kKeys, 0);
        }
      }
    }
    wait_for_copies<0>();
  }
};

template <PortableForward kSpec>
__device__ __forceinline__ void forward_portable(const ForwardParams& params) {
  if constexpr (kSpec.head_dim == 0) {
    WideForward<kSpec>::run(params);
  } else {
    BoundedForward<kSpec>::run(params);
  }
}

}  // namespace attune::kernel
