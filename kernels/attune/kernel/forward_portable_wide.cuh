// Attention forward for head dims without a bound.
//
// Schedule. As forward_portable.cuh, but q, k and v pass through shared memory in chunks of 64 columns:
// S is summed over the chunks of d; O lies in global memory, a chunk of dv at a time is loaded,
// rescaled, added to and stored. Each thread reads only what it wrote itself, so O needs no barrier.
//
// Shared memory: [Q chunk][K chunk][V chunk] (forward_portable_layout.h).
// Accumulator of a tile: [chunks of dv][16-row tile and 8-column tile][threads][4] floats.
#pragma once

#include <attune/part/begin_tile.cuh>
#include <attune/part/dropout.cuh>
#include <attune/part/exact_row.cuh>
#include <attune/part/mask.cuh>
#include <attune/part/softmax.cuh>

namespace attune::kernel {

template <PortableSpec kSpec>
struct WideForward {
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  // Sums of any length: the shortest that are cut.
  using W = WarpShape<kSpec.element, kSpec.queries, kSpec.keys, kSpec.warps, kWideChunk, 1, 1, 2>;
  static constexpr int kThreads = threads_of(kSpec);
  static constexpr bool kTerms = kSpec.bias || kSpec.general;
  using State = Softmax<W, units_of(kSpec)>;
  static constexpr PortableForwardShared kShared = forward_portable_shared(kSpec);

  static __device__ __forceinline__ void run(const ForwardParams& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    auto& facts = *reinterpret_cast<TileFacts*>(shared + kShared.facts);
    if (!begin_tile<kSpec, W>(p, facts)) return;
    const u32 q_tile = shared_address(shared);
    const TilePlace& tile = facts.place;
    const Sequence& seq = facts.seq;

    State softmax(p, State::kAlways);
    const bool any = walk_keys(p, facts, q_tile, softmax);
    softmax.sum_up(WarpPair<W>(0));
    softmax.finish(p, tile.h);
    write_lse<W>(p, seq, tile, softmax);
    u32 bad = 0;
#pragma unroll 1
    for (int column = 0; column < p.dv; column += kWideChunk) {
      typename W::Values o;
      load_values(p, column, !any, o);
      bad |= doubtful_rows<W, Products<kSpec.arch, W>::kKeepsInfinities>(o, softmax);
      scale_values<W>(o, softmax, kSpec.dropout ? p.dropout.keep_scale : 1.0f);
      __syncwarp();
      write_values<kSpec.element, kSpec.aligned, W>(p, seq, tile, o, q_tile, column);
    }
    if (__any_sync(~0u, bad != 0)) {
      const u32 rows = q_tile + threadIdx.x / 32 * W::kWarpRows * W::QTile::kPanel;
      exact_rows<kSpec, W>(p, facts, softmax, bad, rows);
    }
  }

  // P and O block by block; false when there is no key.
  static __device__ __forceinline__ bool walk_keys(const ForwardParams& p, const TileFacts& facts,
                                                   u32 q_tile, State& softmax) {
    const Sequence& seq = facts.seq;
    const MaskSides& sides = facts.sides;
    const int first = facts.place.block * W::kQueries;
    const int count = smaller(W::kQueries, seq.sq - first);
    const u32 v_tile = q_tile + kShared.q + kShared.k;
    const ScoreTerms terms(p, seq, facts.place.b, facts.place.h, kSpec.bias, kSpec.general);
    const int row = first + thread_row<W>(0, 0), end = sides.end(count - 1);
    const int begin = sides.begin(0) / W::kKeys * W::kKeys;
#pragma unroll 1
    for (int j = begin; j < end; j += W::kKeys) {
      typename W::Scores s;
      sum_scores(p, facts, q_tile, j, end, s);
      if constexpr (kTerms) {
        BiasTile<W> bias;
        bias.load(terms, row, seq.sq - 1, j, seq.sk);
        bias.apply(s, terms, row, j);
      }
      if (!WarpRows<W>(facts, j).cover) apply_mask<W>(s, sides, j);
      float alphas[W::kRowTiles][2];
      for (auto& alpha : alphas) alpha[0] = alpha[1] = 1.0f;
      softmax.settle(s, WarpPair<W>(0),
                     [&](int m, int half, float alpha) { alphas[m][half] = alpha; });
      (void)softmax.powers(s);
      if constexpr (kSpec.dropout) drop<W>(s, p, facts.place.b, facts.place.h, row, j);
      KeyRows<Bits, kSpec.general> v_rows(p, p.v, facts.v, facts.place.b);
      const Bits* const base = v_rows.base;
#pragma unroll 1
      for (int column = 0; column < p.dv; column += kWideChunk) {
        __syncthreads();
        v_rows.base = base + column * p.v.d_stride;
        load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::KTile, W::kKeys, kWideChunk>(
            v_tile, v_rows, p.v.d_stride, p.dv - column, j, end);
        commit_copies();
        typename W::Values o;
        load_values(p, column, j == begin, o);
#pragma unroll
        for (int m = 0; m < W::kRowTiles; ++m) {
          State::multiply(o, m, 0, alphas[m][0]);
          State::multiply(o, m, 1, alphas[m][1]);
        }
        wait_for_copies<0>();
        __syncthreads();
        Products<kSpec.arch, W>(q_tile).add_values(o, s, v_tile);
        store_values(p, column, o);
      }
    }
    __syncthreads();
    return begin < end;
  }

  // S of one block of keys, over all chunks of d.
  static __device__ __forceinline__ void sum_scores(const ForwardParams& p, const TileFacts& facts,
                                                    u32 q_tile, int j, int end,
                                                    typename W::Scores& s) {
    const TilePlace& tile = facts.place;
    const u32 k_tile = q_tile + kShared.q;
    clear_fragments(s);
    Products<kSpec.arch, W> products(q_tile);
#pragma unroll 1
    for (int column = 0; column < p.d; column += kWideChunk) {
      __syncthreads();
      QueryRows<const Bits> q_rows(p.q, tile.b, facts.seq.q_start, tile.h);
      q_rows.base += column * p.q.d_stride;
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::QTile, W::kQueries, kWideChunk>(
          q_tile, q_rows, p.q.d_stride, p.d - column, tile.block * W::kQueries, facts.seq.sq);
      KeyRows<Bits, kSpec.general> k_rows(p, p.k, facts.k, tile.b);
      k_rows.base += column * p.k.d_stride;
      load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::KTile, W::kKeys, kWideChunk>(
          k_tile, k_rows, p.k.d_stride, p.d - column, j, end);
      commit_copies();
      wait_for_copies<0>();
      __syncthreads();
      products.take_queries();
      products.scores(s, k_tile, false);
    }
  }

  // This thread's part of a chunk of the accumulator.
  static __device__ __forceinline__ float* accumulator(const ForwardParams& p, int column) {
    const i64 tile = TilePlace::number() * wide_floats(p.dv);
    return p.accumulator + tile + static_cast<i64>(column) * W::kQueries + threadIdx.x * 4;
  }
  static __device__ __forceinline__ i64 wide_floats(int dv) {
    return static_cast<i64>(W::kQueries) * ((dv + kWideChunk - 1) / kWideChunk * kWideChunk);
  }

  static __device__ __forceinline__ void load_values(const ForwardParams& p, int column, bool zero,
                                                     typename W::Values& o) {
    const float* from = accumulator(p, column);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int d = 0; d < W::kWidthTiles; ++d) {
        float4 x = make_float4(0, 0, 0, 0);
        if (!zero) {
          x = *reinterpret_cast<const float4*>(from + (m * W::kWidthTiles + d) * kThreads * 4);
        }
        o[m][d][0] = x.x, o[m][d][1] = x.y, o[m][d][2] = x.z, o[m][d][3] = x.w;
      }
    }
  }

  static __device__ __forceinline__ void store_values(const ForwardParams& p, int column,
                                                      const typename W::Values& o) {
    float* to = accumulator(p, column);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int d = 0; d < W::kWidthTiles; ++d) {
        *reinterpret_cast<float4*>(to + (m * W::kWidthTiles + d) * kThreads * 4) =
            make_float4(o[m][d][0], o[m][d][1], o[m][d][2], o[m][d][3]);
      }
    }
  }
};

}  // namespace attune::kernel
