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

#include <attune/kernel/forward_portable_layout.h>
#include <attune/part/exact_row.cuh>
#include <attune/part/philox.cuh>
#include <attune/part/products.cuh>
#include <attune/part/result.cuh>
#include <attune/part/score.cuh>
#include <attune/part/softmax.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

template <PortableForward kSpec>
struct BoundedForward {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  using W = WarpShape<kSpec.element, kSpec.queries, kSpec.keys, kSpec.warps, kSpec.head_dim>;
  static constexpr int kThreads = threads_of(kSpec);
  static constexpr bool kTerms = kSpec.bias || kSpec.general;
  static constexpr PortableForwardShared kShared = forward_portable_shared(kSpec);

  static __device__ __forceinline__ void run(const ForwardParams& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    auto& facts = *reinterpret_cast<TileFacts*>(shared + kShared.facts);
    static_assert(sizeof(TileFacts) <= kTileFactsBytes);
    const u32 q_tile = shared_address(shared);
    if (!begin_tile(p, facts)) return;

    Products<kSpec.arch, W> products(q_tile);
    Softmax<W, kTerms> softmax(p);
    typename W::Values o;
    for (bool again = false;; again = true) {
      softmax = Softmax<W, kTerms>(p);
      clear(o);
      walk_keys(p, facts, q_tile, products, softmax, o, again);
      if (!Softmax<W, kTerms>::kWide || again || !__syncthreads_or(softmax.overflowed())) break;
    }

    const TilePlace& tile = facts.place;
    const Sequence& seq = facts.seq;
    softmax.finish(p, tile.h);
    write_lse<W>(p, seq, tile, softmax);
    const u32 bad = non_finite_rows<W>(o, softmax);
    scale_values<W>(o, softmax, kSpec.dropout ? p.dropout.keep_scale : 1.0f);
    write_values<kSpec.element, kSpec.aligned, W>(p, seq, tile, o, q_tile);
    if (__any_sync(~0u, bad != 0)) {
      // Over this warp's rows of Q, where O has just left.
      const u32 rows = q_tile + threadIdx.x / 32 * W::kWarpRows * W::QTile::kPanel;
      exact_rows<kSpec, W>(p, seq, tile, softmax, bad, rows);
    }
  }

  // Which tile this is; false when it has no queries.
  static __device__ __forceinline__ bool begin_tile(const ForwardParams& p, TileFacts& facts) {
    const TilePlace tile(p);
    const Sequence seq = sequence_of(p, tile.b);
    write_outside<kSpec.element, kThreads, W::kQueries>(p, seq, tile);
    if (tile.block * W::kQueries >= seq.sq) return false;
    if (threadIdx.x == 0) {
      const int hkv = tile.h / p.group;
      facts = {tile, seq, MaskSides(p, seq, tile.block * W::kQueries),
               first_key_row<Bits, kSpec.general>(p, p.k, tile.b, seq.k_start, hkv),
               first_key_row<Bits, kSpec.general>(p, p.v, tile.b, seq.k_start, hkv)};
    }
    __syncthreads();
    return true;
  }

  static __device__ __forceinline__ void clear(typename W::Values& o) {
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int d = 0; d < W::kWidthTiles; ++d) o[m][d][0] = o[m][d][1] = o[m][d][2] = o[m][d][3] = 0;
    }
  }

  // O and the softmax's state of this tile.
  static __device__ __forceinline__ void walk_keys(const ForwardParams& p, const TileFacts& facts,
                                                   u32 q_tile, Products<kSpec.arch, W>& products,
                                                   Softmax<W, kTerms>& softmax,
                                                   typename W::Values& o, bool again) {
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
    load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::QTile, W::kQueries, W::kWidth>(
        q_tile, q_rows, p.q.d_stride, p.d, first, seq.sq);
    if (begin < reach.end) load_keys(begin, 0);

    const WarpRows rows(static_cast<int>(threadIdx.x / 32) * W::kWarpRows, W::kWarpRows, count,
                        sides);
    const ScoreTerms terms(p, seq, tile.b, tile.h, kSpec.bias, kSpec.general);
    for (int j = begin, stage = 0; j < reach.end; j += W::kKeys) {
      wait_for_copies<0>();
      __syncthreads();
      if (j == begin) products.take_queries();
      if constexpr (kSpec.stages > 1) {
        if (j + W::kKeys < reach.end) load_keys(j + W::kKeys, stage ^ 1);
      }
      if (rows.meet(j, j + W::kKeys)) {
        typename W::Scores s;
        [[maybe_unused]] BiasTile<W> bias;
        const int row = first + thread_row<W>(0, 0);
        if constexpr (kSpec.bias) bias.load(terms, row, seq.sq - 1, j, seq.sk);
        products.scores(s, k_tile + stage * kShared.k);
        if constexpr (kTerms) bias.apply(s, terms, row, j);
        if (!rows.cover(j, j + W::kKeys)) apply_mask(s, facts.sides, j);
        if (!Softmax<W, kTerms>::kWide || softmax.careful) softmax.settle(s, o, again);
        const float top = softmax.powers(s);
        if constexpr (kSpec.dropout) apply_dropout(s, p, tile, first, j);
        products.add_values(o, s, v_tile + stage * kShared.v);
        softmax.lift(top, o);
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

  static __device__ __forceinline__ void apply_mask(typename W::Scores& s, const MaskSides& sides,
                                                    int j) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = thread_row<W>(m, half);
        // As distances from this thread's first key, so that each element is one comparison.
        const int low = sides.begin(row) - j - 4 * t, high = sides.end(row) - j - 4 * t;
#pragma unroll
        for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int key = n / 2 * 16 + n % 2 * 2 + e;
            float& x = s[m][n][2 * half + e];
            if (key < low || key >= high) x = -infinity();
          }
        }
      }
    }
  }

  // Drops elements of P; 1 / (1 - p) waits until the end.
  static __device__ __forceinline__ void apply_dropout(typename W::Scores& s,
                                                       const ForwardParams& p,
                                                       const TilePlace& tile, int first, int j) {
    const DropoutStream stream(p.dropout);
    if (kSpec.general && stream.keeps_all()) return;
    const int t = threadIdx.x % 4;
    const u64 row0 = dropout_row(p, tile.b, tile.h, first + thread_row<W>(0, 0)) + j + 4 * t +
                     stream.offset;
    // Four neighbours share a Philox block where each row starts on one: nearly always.
    const bool together = ((static_cast<u32>(row0) | static_cast<u32>(p.sk)) & 3u) == 0;
    if (p.dropout.state == nullptr && __all_sync(~0u, together)) {
      drop<false>(s, stream, ParameterKeys{p.dropout}, row0, p.sk);
    } else {
      drop<true>(s, stream, SeedKeys(stream.seed), row0, p.sk);
    }
  }

  template <bool kStraddle, typename Keys>
  static __device__ __forceinline__ void drop(typename W::Scores& s, const DropoutStream& stream,
                                              const Keys& keys, u64 row0, int sk) {
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const u64 row = row0 + static_cast<u64>(16 * m + 8 * half) * sk;
#pragma unroll
        for (int n = 0; n < W::kKeyTiles; n += 2) {
          const u64 index = row + 8 * n;
          const PhiloxBlock block = philox(keys, kStraddle ? index >> 2 : (row >> 2) + 2 * n);
          PhiloxBlock next = block;
          u32 phase = 0;
          if constexpr (kStraddle) {
            phase = static_cast<u32>(index) & 3u;
            next = philox(keys, (index + 4) >> 2);  // it wraps before it is divided
          }
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            u32 word = block.word[e];
            if constexpr (kStraddle) {
#pragma unroll
              for (u32 by = 1; by < 4; ++by) {
                if (phase == by) word = e + by < 4 ? block.word[(e + by) % 4] : next.word[(e + by) % 4];
              }
            }
            if (!stream.keeps(word)) s[m][n + e / 2][2 * half + e % 2] = 0.0f;
          }
        }
      }
    }
  }
};

template <PortableForward kSpec>
__device__ __forceinline__ void forward_portable(const ForwardParams& params) {
  BoundedForward<kSpec>::run(params);
}

}  // namespace attune::kernel
