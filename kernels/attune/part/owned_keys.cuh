// One block of keys of the backward pass: where its tiles come from, what one block of queries adds, and
// where the gradients go.
#pragma once

#include <attune/kernel/backward_portable_layout.h>

#include <attune/part/bias_gradient.cuh>
#include <attune/part/exact_gradient.cuh>
#include <attune/part/weigh.cuh>

namespace attune::kernel {

// What a tile of keys is, kept in shared memory: what the main loop seldom needs stays out of registers.
struct KeyFacts {
  KeyPlace place;
  Sequence seq;
  int j;                  // the first key
  int first, count, end;  // blocks of queries to visit, from query `first` on; the end of the last
  int whole_first, whole_last;  // from and up to which query blocks of them have no element masked
  const void *q, *grad_o;       // query 0 of head 0
  BiasWriter bias;
  i64 sum_block;  // its block of queries: head_block()
};

// A block of queries from i on, of head h.
struct Turn {
  int h, i;
};

template <PortableSpec kSpec, typename WType, typename GType>
struct OwnedKeys {
  using W = WType;
  using G = GType;
  using P = Products<kSpec.arch, W, false>;
  using D = Gradients<kSpec.arch, G>;
  using E = Elements<kSpec.element>;
  using Bits = typename E::Bits;
  using V = Visits<kSpec.queries, kSpec.keys>;
  static constexpr int kThreads = threads_of(kSpec);
  static constexpr BackwardShared kShared = backward_portable_shared(kSpec);
  static_assert(sizeof(KeyFacts) <= kKeyFactsBytes);
  const BackwardParams& p;
  KeyFacts& facts;
  u32 sums;                // shared memory: a word a warp
  float slope_sum = 0.0f;  // of this thread, for ALiBi's slope

  __device__ __forceinline__ OwnedKeys(const BackwardParams& p, unsigned char* shared)
      : p(p),
        facts(*reinterpret_cast<KeyFacts*>(shared + kShared.facts)),
        sums(shared_address(shared + kShared.sums)) {}

  // Finds out which tile this is, the block's own or the next one where the order matters, and writes
  // what no query attends to; false when that is all.
  __device__ __forceinline__ bool begin() {
    if (TilePlace::number() >= p.key_tiles) return false;
    if (threadIdx.x == 0) {
      const i64 number = p.turns == nullptr ? TilePlace::number() : next_ticket(p.turns);
      const KeyPlace place(p, number);
      const Sequence seq = sequence_of(p.f, place.b);
      const int j = place.block * kSpec.keys;
      const Diagonals diagonals(p.f, seq);
      const V visits(diagonals, seq, j);
      facts = {place,
               seq,
               j,
               visits.first,
               j < seq.sk ? visits.count : 0,
               visits.first + visits.count * kSpec.queries,
               diagonals.first_whole(j, kSpec.keys),
               diagonals.last_whole(seq, j, kSpec.queries, kSpec.keys),
               QueryRows<const Bits>(p.f.q, place.b, seq.q_start, 0).base,
               QueryRows<const Bits>(p.grad_o, place.b, seq.q_start, 0).base,
               kSpec.bias ? BiasWriter::of(p.grad_bias, place.b) : BiasWriter{nullptr, false},
               head_block(p, seq, place.b, 0, 0, kSpec.queries)};
    }
    __syncthreads();
    write_outside(p.grad_k, p.f.d);
    write_outside(p.grad_v, p.f.dv);
    if constexpr (kSpec.bias) {
      if (facts.bias.data != nullptr) write_bias_outside();
    }
    if constexpr (kSpec.general) {
      if (p.alibi_parts != nullptr && facts.count == 0) {
        for (int h = threadIdx.x; h < p.f.group; h += kThreads) *alibi_part(h) = 0.0f;
      }
    }
    return facts.j < facts.seq.sk;
  }

  [[nodiscard]] __device__ __forceinline__ float* alibi_part(int head_of_group) const {
    const i64 h = static_cast<i64>(facts.place.hkv) * p.f.group + head_of_group;
    return p.alibi_parts + (static_cast<i64>(facts.place.b) * p.f.hq + h) * p.key_blocks +
           facts.place.block;
  }

  // Zeros for keys of the tensor that are none of the sequence's: past its length, or, after the last
  // sequence, nobody's. The tiles of a head share them.
  __device__ __forceinline__ void write_outside(const Operand& x, int d) const {
    const ForwardParams& f = p.f;
    i64 rows = f.sk;
    if (f.cu_seqlens_k.data != nullptr) {
      const int* at = f.cu_seqlens_k.data + facts.place.b * f.cu_seqlens_k.stride;
      rows = (facts.place.b == f.b - 1
                  ? f.total_k
                  : clamp(at[f.cu_seqlens_k.stride], facts.seq.k_start, f.total_k)) -
             facts.seq.k_start;
    }
    Bits* const first = static_cast<Bits*>(x.data) + facts.place.b * x.b_stride +
                        facts.seq.k_start * x.s_stride + facts.place.hkv * x.h_stride;
    const i64 step = static_cast<i64>(p.key_blocks) * kSpec.keys;
    for (i64 tile = facts.j; tile < rows; tile += step) {
      const i64 end = smaller<i64>(tile + kSpec.keys, rows);
      for (i64 row = larger<i64>(tile, facts.seq.sk); row < end; ++row) {
        for (int c = threadIdx.x; c < d; c += kThreads) {
          first[row * x.s_stride + c * x.d_stride] = 0;
        }
      }
    }
  }

  // Zeros of the bias's gradient for queries that attend to none of these keys.
  __device__ __forceinline__ void write_bias_outside() const {
    constexpr int kColumns = kSpec.keys / 4;
    static_assert(kThreads % kColumns == 0);
    const int sq = p.grad_bias.sq, thread = threadIdx.x;
    const int before = facts.count > 0 ? facts.first : sq, end = facts.end;
    const int rows = before + (facts.count > 0 && end < sq ? sq - end : 0);
    const int j = facts.j + thread % kColumns * 4;
    for (int h = facts.place.hkv * p.f.group; h < (facts.place.hkv + 1) * p.f.group; ++h) {
      for (int row = thread / kColumns; row < rows; row += kThreads / kColumns) {
        facts.bias.write(p.grad_bias, h, row < before ? row : row - before + end, j, 0, 0, 0, 0);
      }
    }
  }
  // dS of one turn.
  __device__ __forceinline__ void write_bias(const Turn& turn, const typename W::Scores& ds) const {
    const int j = facts.j + W::half() * W::kWarpKeys + 4 * static_cast<int>(threadIdx.x % 4);
    BiasTile<W>::for_each([&](int m, int half, int n) {
      const float(&low)[4] = ds[m][2 * n], (&high)[4] = ds[m][2 * n + 1];
      facts.bias.write(p.grad_bias, turn.h, turn.i + thread_row<W>(m, half), j + 16 * n,
                       low[2 * half], low[2 * half + 1], high[2 * half], high[2 * half + 1]);
    });
  }

  [[nodiscard]] __device__ __forceinline__ int turns() const { return facts.count * p.f.group; }
  [[nodiscard]] __device__ __forceinline__ Turn first_turn() const {
    return {facts.place.hkv * p.f.group, facts.first};
  }
  [[nodiscard]] __device__ __forceinline__ bool ends_head(const Turn& turn) const {
    return turn.i + kSpec.queries >= facts.end;
  }
  [[nodiscard]] __device__ __forceinline__ Turn after(const Turn& turn) const {
    if (ends_head(turn)) return {turn.h + 1, facts.first};
    return {turn.h, turn.i + kSpec.queries};
  }

  // Columns from `column` on.
  __device__ __forceinline__ void load_keys(const Operand& x, u32 to, int d, int column = 0) const {
    const Bits* first =
        first_key_row<Bits, false>(p.f, x, facts.place.b, facts.seq.k_start, facts.place.hkv) +
        column * x.d_stride;
    const KeyRows<Bits, false> rows(p.f, x, first, facts.place.b);
    load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::KTile, W::kKeys, W::kWidth>(
        to, rows, x.d_stride, d - column, facts.j, facts.seq.sk);
  }
  // Of q or grad_o, whose first row `row0` is.
  __device__ __forceinline__ void load_queries(const Operand& x, const void* row0, u32 to, int d,
                                               const Turn& turn, int column = 0) const {
    const QueryRows<const Bits> rows(static_cast<const Bits*>(row0) +
                                         static_cast<u32>(turn.h) * x.h_stride +
                                         column * x.d_stride,
                                     x.s_stride);
    load_rows<kSpec.element, kSpec.aligned, kThreads, typename W::QTile, W::kQueries, W::kWidth>(
        to, rows, x.d_stride, d - column, turn.i, facts.seq.sq);
  }

  __device__ __forceinline__ void load_facts(u32 to, const Turn& turn) const {
    Weigher<kSpec, W>::copy_rows(to, p, sum_block(turn));
  }

  // P and dS of one turn to shared memory. scores(x) and weights(x) compute S and dP.
  template <typename S, typename Dp>
  __device__ __forceinline__ void weigh(const Turn& turn, u32 rows, u32 p_tile, u32 s_tile,
                                        const S& scores, const Dp& gradients) {
    Weigher<kSpec, W> weigher(p, facts.seq, facts.place.b, turn.h, turn.i, facts.j, rows);
    weigher.begin();
    typename W::Scores s, dp;
    scores(s);
    weigher.powers(s, turn.i >= facts.whole_first && turn.i <= facts.whole_last);
    store_weights<G, W>(p_tile, s, [](float x) { return Weigher<kSpec, W>::kept(x); });
    gradients(dp);
    weigher.differences(s, dp);
    if constexpr (kSpec.bias) {
      if (facts.bias.data != nullptr) write_bias(turn, s);
    }
    if constexpr (kSpec.general) {
      if (p.alibi_parts != nullptr) slope_sum += weigher.slope_gradient(s);
      weigher.through_softcap(s);
    }
    store_weights<G, W>(s_tile, s, [](float x) { return x; });
  }

  // This head's part of the gradient of ALiBi's slope, when this was its last turn.
  __device__ __forceinline__ void finish_head(const Turn& turn) {
    if constexpr (kSpec.general) {
      if (p.alibi_parts == nullptr || !ends_head(turn)) return;
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) {
        slope_sum += __shfl_xor_sync(~0u, slope_sum, distance);
      }
      __syncthreads();
      if (threadIdx.x % 32 == 0) {
        store_shared(sums + threadIdx.x / 32 * 4, __float_as_uint(slope_sum));
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int warp = 0; warp < kSpec.warps; ++warp) {
          sum += __uint_as_float(load_shared(sums + warp * 4));
        }
        *alibi_part(turn.h - facts.place.hkv * p.f.group) = sum;
      }
      slope_sum = 0.0f;
    }
  }

  [[nodiscard]] __device__ __forceinline__ i64 sum_block(const Turn& turn) const {
    return facts.sum_block + static_cast<u32>(turn.i) / kSpec.queries * static_cast<i64>(p.f.hq) +
           turn.h;
  }

  // Where the order counts: one thread returns from it when it is this block's turn to add; a barrier
  // tells the others.
  __device__ __forceinline__ void await_turn(const Turn& turn) const {
    if (p.turns == nullptr || threadIdx.x != 0) return;
    kernel::wait_for_turn(p.turns + 1 + sum_block(turn), takers_before(turn));
  }
  // Of the turn before this one, if any, after a barrier behind its add_queries(). By another warp, for it
  // waits until the sums have arrived.
  __device__ __forceinline__ void pass_turn_before(const Turn& next) const {
    if (p.turns == nullptr || threadIdx.x != kThreads - 1) return;
    const bool head = next.i == facts.first;  // the first of one
    if (head && next.h == facts.place.hkv * p.f.group) return;
    const Turn turn =
        head ? Turn{next.h - 1, facts.end - kSpec.queries} : Turn{next.h, next.i - kSpec.queries};
    kernel::pass_turn(p.turns + 1 + sum_block(turn), takers_before(turn) + 1);
  }
  [[nodiscard]] __device__ __forceinline__ u32 takers_before(const Turn& turn) const {
    return V::later(Diagonals(p.f, facts.seq), facts.seq, turn.i, facts.j);
  }

  // Adds this warp's part of dS K, columns from `column` on, to dQ's sums.
  __device__ __forceinline__ void add_queries(const Turn& turn, int column,
                                              const typename G::QueryGradients& dq) const {
    constexpr int kColumns = G::kQueryColumns / 8;
    float* to = query_sums<kSpec, G>(p, sum_block(turn), column);
#pragma unroll
    for (int m = 0; m < G::kQueryRows / 16; ++m) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) add_global(to + (m * kColumns + n) * 128, dq[m][n]);
    }
  }

  // dK or dV, columns from `column` on.
  __device__ __forceinline__ void write(const Operand& x, int d, int column,
                                        const typename G::KeyGradients& from, float factor,
                                        bool values) const {
    const int first = column + G::key_column0() + 2 * static_cast<int>(threadIdx.x % 4);
    Bits* const head = static_cast<Bits*>(x.data) + facts.place.b * x.b_stride +
                       facts.seq.k_start * x.s_stride + facts.place.hkv * x.h_stride;
#pragma unroll
    for (int m = 0; m < G::kKeyRows / 16; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int key = facts.j + G::key(m, half);
        if (key < facts.seq.sk) {
          Bits* const row = head + key * x.s_stride;
#pragma unroll
          for (int n = 0; n < G::kKeyColumns / 8; ++n) {
            store_pair<kSpec.element, kSpec.aligned>(row, x.d_stride, first + 8 * n, d,
                                                     from[m][n][2 * half] * factor,
                                                     from[m][n][2 * half + 1] * factor);
          }
        }
        const u32 bad = __ballot_sync(~0u, doubtful(from, m, half));
        if (bad != 0) write_again(m, half, bad, column, values);
      }
    }
  }

  // Rows that hold a value that is not finite; `bad` has a bit for each of this warp's threads.
  __device__ __forceinline__ void write_again(int m, int half, u32 bad, int column,
                                              bool values) const {
#pragma unroll 1
    for (int g = 0; g < 8; ++g) {
      const int key = facts.j + G::key_row0() + 16 * m + 8 * half + g;
      if ((bad >> 4 * g & 15u) == 0 || key >= facts.seq.sk) continue;
      __syncwarp();
      write_exact_key<kSpec>(p, facts.place.b, facts.place.hkv, key, column + G::key_column0(),
                             G::kKeyColumns, values);
    }
  }
};

}  // namespace attune::kernel
