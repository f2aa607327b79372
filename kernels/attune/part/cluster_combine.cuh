// One tile's O from what the blocks of threads of a cluster made of their shares of its keys. Each leaves O, m and
// l of its own in shared memory; then each combines some of the rows, reading all of them in the same order.
#pragma once

#include <attune/arch/barrier.cuh>
#include <attune/arch/cluster.cuh>
#include <attune/arch/tma.cuh>
#include <attune/part/exact_row.cuh>
#include <attune/part/key_shares.cuh>
#include <attune/part/packed_rows.cuh>

namespace attune::kernel {

// A row that has met a NaN or an infinity, perhaps only as 0 * NaN of a masked key. A function of its own, as
// write_exact_rows().
template <auto kSpec>
__device__ __noinline__ void write_exact_row(const ForwardParams& p, const TileFacts& facts, int h,
                                             int i, float reference, float inverse) {
  ExactRow<kSpec>(p, facts.seq, facts.place.b, h, i).write(reference, inverse);
}

// kAll, kOwn: numbers among the barriers of the block, for the warpgroups that compute and for each of them.
template <HopperSpec kSpec, typename W, int kAll, int kOwn>
struct ClusterCombine {
  using Rings = HopperRings<kSpec>;
  using E = Elements<kSpec.element>;
  static constexpr HopperShared kShared = Rings::kShared;
  static constexpr int kGroup = 128, kGroups = consumers_of(kSpec), kThreads = kGroups * kGroup;
  static constexpr int kColumns = 4;  // that a thread combines at once
  static constexpr int kPieces = kSpec.value_dim / kColumns;
  static constexpr int kRowBytes = kSpec.value_dim * 4;
  static_assert(!kSpec.split || kSpec.queries * kRowBytes <= kShared.bias - kShared.k);
  static_assert(!kSpec.split || kSpec.queries * kCombinedRowBytes <= kShared.k);
  static_assert(!kSpec.split || (!kSpec.bias && !kSpec.dropout && !kSpec.general));
  static_assert(kRowBytes % 128 == 0);

  const ForwardParams& p;
  const Rings& rings;

  // Chunks of 32 bytes are exchanged among neighbouring rows, so that neither who leaves fragments nor who reads
  // rows meets a bank twice.
  [[nodiscard]] __device__ __forceinline__ u32 value_at(int row, int byte) const {
    return rings.k.tiles + row * kRowBytes + (byte ^ (row & 3) << 5);
  }
  [[nodiscard]] __device__ __forceinline__ u32 sums_at(int row) const {
    return rings.q.tiles + kShared.sums + row * 8;
  }
  // Of the rows that this block combines: weights of the shares, reference, inverse, whether the row is to be
  // computed again, and its sum.
  [[nodiscard]] __device__ __forceinline__ u32 facts_at(int row) const {
    return rings.q.tiles + row * kCombinedRowBytes;
  }

  // By the warps that compute, once they are through with their keys.
  template <typename State>
  __device__ __forceinline__ void leave(const State& softmax, const typename W::Values& o) const {
    barrier_sync(kAll, kThreads);  // others may still multiply by K and V
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = thread_row<W>(0, half);
      if (t == 0) {
        store_shared(sums_at(row), __float_as_uint(softmax.m[0][half]),
                     __float_as_uint(softmax.l[0][half]));
      }
#pragma unroll
      for (int d = 0; d < W::kWidthTiles; ++d) {
        store_shared(value_at(row, 32 * (d % 4) + 8 * t) + d / 4 * 128,
                     __float_as_uint(o[0][d][2 * half]), __float_as_uint(o[0][d][2 * half + 1]));
      }
    }
    fence_shared_for_engines();  // a tile that is walked again fetches K and V to the same place
  }

  // By all who compute, of all blocks, while the others look on.
  __device__ __forceinline__ void run() const {
    cluster_sync();
    combine(static_cast<int>(threadIdx.x) - 128);
    cluster_sync();  // whose shared memory others read must not end
  }
  static __device__ __forceinline__ void look_on() {
    cluster_sync();
    cluster_sync();
  }

  __device__ __forceinline__ void combine(int thread) const {
    const TileFacts& facts = rings.tile(0).facts;
    const TileRows<true> map(p);
    const int queries = map.queries(kSpec.queries);
    const int blocks = cluster_blocks(), rank = cluster_rank();
    if (rank == 0) write_outside_of(facts, queries, thread);
    const int left = facts.seq.sq - facts.place.block * queries;
    const int rows = map.rows(larger(smaller(queries, left), 0));
    // Each warpgroup has rows of its own, and waits for itself alone.
    const int group = uniform(thread / kGroup), own = thread % kGroup;
    const int each = (rows + blocks * kGroups - 1) / (blocks * kGroups);
    const int from = (rank * kGroups + group) * each, count = smaller(rows - from, each);
    if (count <= 0) return;
    const KeyBlocks all = KeyBlocks::of<kSpec.keys>(sides_of_rows<true>(p, facts.sides), rows);
    const int used = KeyShares(all, blocks).used;
    const int place = group * each;  // of the first row's facts
    if (own < count) weigh(facts, from + own, used, facts_at(place + own));
    barrier_sync(kOwn + group, kGroup);
    for (int piece = own; piece < count * kPieces; piece += kGroup) {
      const int row = piece / kPieces;
      add(facts, from + row, piece % kPieces, used, facts_at(place + row));
    }
    barrier_sync(kOwn + group, kGroup);
#pragma unroll 1
    for (int row = own / 32; row < count; row += kGroup / 32) {
      again(facts, from + row, facts_at(place + row));
    }
  }

  __device__ __forceinline__ void write_outside_of(const TileFacts& facts, int queries,
                                                   int thread) const {
    TilePlace place = facts.place;
#pragma unroll 1
    for (int head = 0; head < 1 << p.pack_shift; ++head, ++place.h) {
      write_outside<kSpec.element, kThreads>(p, facts.seq, place, queries, thread);
    }
  }

  [[nodiscard]] __device__ __forceinline__ int head_of(const TileFacts& facts, int row) const {
    return facts.place.h + TileRows<true>(p).head(row);
  }
  [[nodiscard]] __device__ __forceinline__ int query_of(const TileFacts& facts, int row) const {
    const TileRows<true> map(p);
    return facts.place.block * map.queries(kSpec.queries) + map.queries(row);
  }

  // What each share of a row counts, and its LSE.
  __device__ __forceinline__ void weigh(const TileFacts& facts, int row, int used, u32 at) const {
    float m[kMostSplits], l[kMostSplits];
    float reference = -infinity();
#pragma unroll
    for (int i = 0; i < kMostSplits; ++i) {
      u32 sums[2] = {0, 0};
      if (i < used) load_cluster(sums, cluster_address(sums_at(row), i));
      m[i] = __uint_as_float(sums[0]);
      l[i] = __uint_as_float(sums[1]);
      // The reference of a share in which the row has met no key is any.
      if (l[i] != 0.0f) reference = fmaxf(reference, m[i]);
    }
    const float base = reference == -infinity() ? 0.0f : reference;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kMostSplits; ++i) {
      m[i] = l[i] != 0.0f ? exp2_fast(m[i] - base) : 0.0f;
      sum = fmaf(m[i], l[i], sum);
    }
    const int h = head_of(facts, row);
    const FinishedRow finished = finish_row<false, kSpec.element>(p, h, reference, sum);
#pragma unroll
    for (int i = 0; i < kMostSplits; ++i) {
      store_shared(at + 4 * i, __float_as_uint(m[i] * finished.inverse));
    }
    store_shared(at + 32, __float_as_uint(reference), __float_as_uint(finished.inverse));
    store_shared(at + 40, 0, __float_as_uint(sum));
    if (p.lse.data == nullptr) return;
    *lse_at(p, facts.seq, facts.place.b, h, query_of(facts, row)) = finished.lse;
  }

  // Some neighbouring columns of a row.
  __device__ __forceinline__ void add(const TileFacts& facts, int row, int piece, int used,
                                      u32 known) const {
    const u32 at = value_at(row, 16 * piece);
    u32 part[kMostSplits][4], weights[2][4];
#pragma unroll
    for (int i = 0; i < kMostSplits; ++i) {
      load_cluster(part[i], cluster_address(at, i < used ? i : 0), i < used);
    }
    load_shared(weights[0], known);
    load_shared(weights[1], known + 16);
    float sum[kColumns] = {}, test = 0.0f;  // NaN as soon as one of them is not finite
#pragma unroll
    for (int e = 0; e < kColumns; ++e) {
#pragma unroll
      for (int i = 0; i < kMostSplits; ++i) {
        sum[e] = fmaf(__uint_as_float(part[i][e]), __uint_as_float(weights[i / 4][i % 4]), sum[e]);
      }
      test = fmaf(sum[e], 0.0f, test);
    }
    if (test != test) store_shared(known + 40, 1u);
    const u32 words[2] = {E::pack(sum[0], sum[1]), E::pack(sum[2], sum[3])};
    const int h = head_of(facts, row), column = kColumns * piece;
    auto* const to =
        QueryRows<typename E::Bits>(p.o, facts.place.b, facts.seq.q_start, h)(query_of(facts, row));
    store_global(to + column, words, column < p.dv);
  }

  // By a warp: as exact_rows(), whose rule for infinities is that of products that keep them.
  __device__ __forceinline__ void again(const TileFacts& facts, int row, u32 at) const {
    u32 known[4];  // reference, inverse, doubtful, sum
    load_shared(known, at + 32);
    if (known[2] == 0 || !(__uint_as_float(known[3]) * 0.0f == 0.0f)) return;
    write_exact_row<kSpec>(p, facts, head_of(facts, row), query_of(facts, row),
                           __uint_as_float(known[0]), __uint_as_float(known[1]));
  }
};

}  // namespace attune::kernel
