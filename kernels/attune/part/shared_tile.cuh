// A tile of rows in shared memory, swizzled so that neither the copies nor the matrix loads meet a
// bank twice, and how its rows get there.
//
// A row is cut into panels of 128 bytes (64 where the width is no multiple of 128); a panel is
// [rows][bytes], its 16-byte chunks exchanged by an exclusive or with a few bits of the row.
//
// Rows of K and V are taken in an order of their own: in each group of 16 keys, columns 2t and
// 2t + 1 of the first product tile are keys 4t and 4t + 1, those of the second 4t + 2 and 4t + 3. So
// a thread owns four neighbouring keys: one Philox block, one load of bias.
#pragma once

#include <attune/arch/shared.cuh>
#include <attune/part/element.cuh>
#include <attune/part/sequence.cuh>

namespace attune::kernel {

// In which order the rows of a tile are met. No eight that one instruction meets share a bank.
enum class RowOrder {
  natural,  // matrix loads of eight neighbours
  keys,     // and of eight in the order of keys above
  weights,  // eight neighbours, and 8-byte stores of a warp to eight rows and 32 bytes
};

// No panel reaches over two of the row's kParts equal parts.
template <int kRows, int kRowBytes, RowOrder kOrder, int kParts = 1>
struct SharedTile {
  static constexpr int kPanel = kRowBytes / kParts % 128 == 0 ? 128 : 64;
  static_assert(kRowBytes / kParts % kPanel == 0);
  static constexpr int kChunks = kPanel / 16;
  static constexpr int kPanels = kRowBytes / kPanel;
  static constexpr int kBytes = kRows * kRowBytes;
  static constexpr int kPartBytes = kBytes / kParts;

  // What the chunk number is combined with: differs between the eight rows of a matrix load. An
  // exclusive or of the row's bits, so that of two rows with no bit in common is that of their sum.
  static __device__ __forceinline__ constexpr int swizzle(int row) {
    if constexpr (kPanel == 128) {
      if (kOrder == RowOrder::keys) return (row & 1) | (row >> 1 & 2) | ((row << 1 ^ row >> 1) & 4);
      return kOrder == RowOrder::weights ? (row << 1 & 6) | (row >> 2 & 1) : row & 7;
    } else {  // two rows share a line of banks
      if (kOrder == RowOrder::keys) return (row >> 2 & 1) | ((row ^ row >> 2) & 2);
      return kOrder == RowOrder::weights ? (row & 2) | (row >> 2 & 1) : row >> 1 & 3;
    }
  }
  // Byte offset of a 16-byte chunk, counted over the whole row.
  static __device__ __forceinline__ u32 chunk(int row, int chunk) {
    const int panel = chunk / kChunks, inner = chunk % kChunks;
    return panel * (kRows * kPanel) + row * kPanel + ((inner ^ swizzle(row)) << 4);
  }
};

// A thread's part in matrix loads from a tile: lane -> row, and the swizzle folded into one
// exclusive or.
template <typename Tile>
struct MatrixReader {
  u32 base;   // address of this lane's row
  u32 first;  // its swizzle and its half of a pair of chunks, in bytes

  // `row` is below 16 and `half` 0 or 1; rows 16 apart share their swizzle.
  __device__ __forceinline__ MatrixReader(u32 tile, int row, int half)
      : base(tile + row * Tile::kPanel), first((Tile::swizzle(row) ^ half) << 4) {}

  // The same from pair `pair0` on. Pairs to come, below kSpan, a power of two of which pair0 is a
  // multiple, may then be known at compile time.
  template <int kRowsOfTile, int kSpan>
  [[nodiscard]] __device__ __forceinline__ MatrixReader from(int pair0) const {
    static_assert((kSpan & (kSpan - 1)) == 0);
    MatrixReader reader = *this;
    reader.base += 2 * pair0 / Tile::kChunks * (kRowsOfTile * Tile::kPanel);
    reader.first ^= 2 * pair0 % Tile::kChunks << 4;
    return reader;
  }

  // Of 16 rows from `row` on, the chunk pair 2 * pair; both known at compile time.
  template <int kRowsOfTile>
  [[nodiscard]] __device__ __forceinline__ u32 at(int row, int pair) const {
    const int panel = 2 * pair / Tile::kChunks, inner = 2 * pair % Tile::kChunks;
    return base + panel * (kRowsOfTile * Tile::kPanel) + row * Tile::kPanel + (first ^ inner << 4);
  }
};

// Row of a 16-row group that a lane names in a matrix load of K or V: matrices 0 and 1 (2 and 3)
// hold the two halves of the group's keys when kPairFirst, else 0 and 2 (1 and 3).
__device__ __forceinline__ int key_row(int index, int half) {
  return (index >> 1) * 4 + half * 2 + (index & 1);
}

// Rows [first, first + kRows) of one head to shared memory; rows from `end` on and columns from d on
// become zeros. Precondition of the aligned way: unit stride, everything a multiple of 16 bytes.
// kThreads threads do it together; with kPieces calls for `piece` 0 and on, a part of it each.
template <Element kElement, bool kAligned, int kThreads, typename Tile, int kRows, int kWidth,
          int kPieces = 1, typename RowAddress>
__device__ __forceinline__ void load_rows(u32 tile, const RowAddress& row_address, i64 d_stride,
                                          int d, int first, int end, int piece = 0) {
  using E = Elements<kElement>;
  constexpr int kPerChunk = 16 / static_cast<int>(sizeof(typename E::Bits));
  constexpr int kRowChunks = kWidth / kPerChunk;
  constexpr int kAll = kRows * kRowChunks;
  const int thread = threadIdx.x % kThreads;
  if constexpr (kAligned && !RowAddress::kScattered) {
    // A thread keeps its columns; its rows lie a constant number apart.
    constexpr int kWidest = kThreads / 16 < 16 && kPieces > 1 ? 8 : 16;
    constexpr int kAcross = kRowChunks % kWidest == 0 ? kWidest : kRowChunks % 8 == 0 ? 8 : 4;
    constexpr int kTurns = kRowChunks / kAcross, kTurnsAPiece = (kTurns + kPieces - 1) / kPieces;
    constexpr int kStep = kThreads / kAcross;
    const int row = thread / kAcross, chunk = thread % kAcross;
    const auto* from =
        row_address.base + static_cast<u32>(first + row) * row_address.s_stride + chunk * kPerChunk;
    const int rows = end - first - row;
#pragma unroll
    for (int turn = 0; turn < kTurnsAPiece; ++turn) {
      const int c = (piece * kTurnsAPiece + turn) * kAcross;
      if (c >= kRowChunks) break;
      const int there = (chunk + c) * kPerChunk < d ? rows : 0;
#pragma unroll
      for (int r = 0; r < kRows; r += kStep) {
        if (kRows % kStep != 0 && row + r >= kRows) break;
        copy_async(tile + Tile::chunk(row + r, chunk + c),
                   from + r * row_address.s_stride + c * kPerChunk, r < there);
      }
    }
  } else {
    static_assert(kPieces == 1);
    // Elements of a chunk are loaded together, chunks after each other: addresses take registers.
#pragma unroll 1
    for (int turn = 0; turn < (kAll + kThreads - 1) / kThreads; ++turn) {
      const int index = turn * kThreads + thread;
      if (kAll % kThreads != 0 && index >= kAll) break;
      const int row = index / kRowChunks, chunk = index % kRowChunks;
      const int column = chunk * kPerChunk;
      const int j = first + row;
      const bool inside = j < end && column < d;
      const auto* from = row_address(inside ? j : -1);
      const u32 to = tile + Tile::chunk(row, chunk);
      if constexpr (kAligned) {
        copy_async(to, from + (inside ? column : 0), inside);
      } else {
        u32 r[4] = {0, 0, 0, 0};
#pragma unroll
        for (int e = 0; e < kPerChunk; ++e) {
          typename E::Bits bits = 0;
          if (inside && column + e < d) bits = from[(column + e) * d_stride];
          r[e * 4 / kPerChunk] |= static_cast<u32>(bits) << (e * 32 / (kPerChunk / 4)) % 32;
        }
        store_shared(to, r);
      }
    }
  }
}

// Addresses of rows of q (and o): query i of head h.
template <typename Bits>
struct QueryRows {
  static constexpr bool kScattered = false;
  Bits* base;
  i64 s_stride;
  __device__ __forceinline__ QueryRows(const Operand& x, int b, int start, int h)
      : base(static_cast<Bits*>(x.data) + b * x.b_stride + start * x.s_stride + h * x.h_stride),
        s_stride(x.s_stride) {}
  __device__ __forceinline__ QueryRows(Bits* row0, i64 stride) : base(row0), s_stride(stride) {}
  [[nodiscard]] __device__ __forceinline__ Bits* operator()(int i) const {
    return base + (i < 0 ? 0 : i) * s_stride;
  }
};

// Row 0 of a head of k or v (of page 0 when paged).
template <typename Bits, bool kPaged>
__device__ __forceinline__ const Bits* first_key_row(const ForwardParams& p, const Operand& x,
                                                     int b, int start, int h) {
  const bool paged = kPaged && p.page_table.data != nullptr;
  return static_cast<const Bits*>(x.data) + h * x.h_stride +
         (paged ? 0 : b * x.b_stride + start * x.s_stride);
}

// Addresses of rows of k or v; -1 names any row that may be pointed at but is not read.
template <typename Bits, bool kPaged>
struct KeyRows {
  static constexpr bool kScattered = kPaged;  // rows need not lie a stride apart
  const Bits* base;
  i64 s_stride, b_stride;
  const ForwardParams* params;
  int b;
  __device__ __forceinline__ KeyRows(const ForwardParams& p, const Operand& x, const void* row0,
                                     int b)
      : base(static_cast<const Bits*>(row0)),
        s_stride(x.s_stride),
        b_stride(x.b_stride),
        params(&p),
        b(b) {}
  [[nodiscard]] __device__ __forceinline__ const Bits* operator()(int j) const {
    if (j < 0) return base;
    if constexpr (kPaged) {
      const Indices& table = params->page_table;
      if (table.data != nullptr) {
        const int page =
            clamp(table.data[b * table.stride + j / params->page_size * table.inner_stride], 0,
                  params->pages - 1);
        return base + page * b_stride + j % params->page_size * s_stride;
      }
    }
    return base + j * s_stride;
  }
};

}  // namespace attune::kernel
