// The walk over keys where two warps share 32 rows, for heads whose O does not fit one warp's registers:
// each has half of a block's keys in S and half of the columns in O, and they exchange P through
// shared memory (part/warp_pair.cuh). Features are left to the rows of the table that do not share.
//
// Two turns a block, S and then P V. Half of the warps are a turn behind, so that one half's softmax
// falls into the other's products. Who multiplies P and V also starts the copies of the next block,
// between its products: K in even turns, V in odd ones; each is there two turns later.
#pragma once

#include <attune/part/begin_tile.cuh>
#include <attune/part/mask.cuh>
#include <attune/part/softmax.cuh>

namespace attune::kernel {

template <PortableSpec kSpec, typename W>
struct PairedWalk {
  static_assert(kSpec.aligned && !kSpec.bias && !kSpec.dropout && !kSpec.general);
  static_assert(kSpec.stages == 2 && kSpec.warps % 4 == 0);
  using Bits = typename Elements<kSpec.element>::Bits;
  using State = Softmax<W, Units::products>;
  static constexpr PortableForwardShared kShared = forward_portable_shared(kSpec);
  static constexpr int kThreads = threads_of(kSpec), kLoaders = kThreads / 2;
  static constexpr int kPieces = W::kKeys / 16;

  // Waits for both halves of the warps, which are at different places of the code. Two barriers a turn,
  // one that each half waits at and the other only arrives at; two turns have their own, since the
  // half that is ahead arrives again before the last of the others has left.
  static __device__ __forceinline__ void meet(int behind, int turn) {
    constexpr int kFirst = kSpec.warps / 2 + 1;  // those before are the pairs' (warp_pair.cuh)
    static_assert(kFirst + 4 <= 16);
    const int first = kFirst + 2 * (turn & 1);
    barrier_arrive(first + (behind ^ 1), kThreads);
    barrier_sync(first + behind, kThreads);
  }

  // O and the softmax's state of this tile.
  static __device__ __forceinline__ void run(const ForwardParams& p, const TileFacts& facts,
                                             u32 q_tile, Products<kSpec.arch, W>& products,
                                             State& softmax, const WarpPair<W>& pair,
                                             typename W::Values& o) {
    const int sq = facts.seq.sq, first = facts.place.block * W::kQueries;
    const u32 k_tile = q_tile + kShared.q, v_tile = k_tile + kSpec.stages * kShared.k;
    const int begin = facts.sides.begin(0) / W::kKeys * W::kKeys;
    const int end = facts.sides.end(smaller(W::kQueries, sq - first) - 1);
    const int behind = static_cast<int>(threadIdx.x) / kLoaders;

    // This half's share of block j: K for the half that is behind, V for the other.
    const auto load = [&](int j, int stage, int piece) {
      const int half = opaque(behind);  // or what follows from it takes registers all along
      const bool values = half == 0;
      const Operand& x = values ? p.v : p.k;
      const KeyRows<Bits, false> rows(p, x, values ? facts.v : facts.k, facts.place.b);
      load_rows<kSpec.element, true, kLoaders, typename W::KTile, W::kKeys, W::kWidth, kPieces>(
          (values ? v_tile : k_tile) + stage * kShared.k, rows, x.d_stride, values ? p.dv : p.d, j,
          end, piece);
    };
    const auto load_all = [&](int j, int stage) {
#pragma unroll 1
      for (int piece = 0; piece < kPieces; ++piece) load(j, stage, piece);
    };

    const QueryRows<const Bits> q_rows(p.q, facts.place.b, facts.seq.q_start, facts.place.h);
    if (begin < end) {  // else late copies of Q would race with O, which leaves through its tile
      load_rows<kSpec.element, true, kThreads, typename W::QTile, W::kQueries, W::kWidth>(
          q_tile, q_rows, p.q.d_stride, p.d, first, sq);
      load_all(begin, 0);
    }
    commit_copies();
    wait_for_copies<0>();
    if (behind != 0) {
      meet(behind, 0);
      load_all(begin + W::kKeys, 1);
    }
    commit_copies();
#pragma unroll 1
    for (int j = begin, stage = 0; j < end; j += W::kKeys, stage ^= 1) {
      typename W::Scores s;
      wait_for_copies<1>();
      meet(behind, behind);
      const WarpRows<W> rows(facts, j);
      const auto rescale = [&](int m, int half, float alpha) {
        State::multiply(o, m, half, alpha);
      };
      if (rows.meet) {
        products.scores(s, k_tile + stage * kShared.k);
        if (!rows.cover) apply_mask<W>(s, facts.sides, j + W::half() * W::kWarpKeys);
        if (!State::kWide || softmax.careful != State::kNever) {
          softmax.settle(s, pair, rescale);
        }
      }
      wait_for_copies<0>();
      meet(behind, 1 + behind);
      const int next = j + (1 + behind) * W::kKeys, next_stage = stage ^ 1 ^ behind;
      if (rows.meet) {
        const float top = softmax.powers(s);
        products.share(s);
        const bool large = pair.any(State::kWide && top > State::kLift);
        products.add_values(o, s, v_tile + stage * kShared.v,
                            [&](int piece) { load(next, next_stage, piece); });
        if (large) softmax.lift(pair, rescale);
      } else {
        load_all(next, next_stage);
      }
      commit_copies();
    }
    if (behind == 0) meet(behind, 0);
    wait_for_copies<0>();
  }
};

}  // namespace attune::kernel
