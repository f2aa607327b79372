// Writing o and the LSE: a warp's rows, and what belongs to no query.
#pragma once

#include <attune/arch/global.cuh>
#include <attune/part/products.cuh>
#include <attune/part/softmax.cuh>
#include <attune/part/tile_order.cuh>

namespace attune::kernel {

// Where the LSE of a query lies.
__device__ __forceinline__ float* lse_at(const ForwardParams& p, const Sequence& seq, int b, int h,
                                         i64 i) {
  return p.lse.data + b * p.lse.b_stride + h * p.lse.h_stride +
         (i + (p.lse.packed != 0 ? seq.q_start : 0)) * p.lse.s_stride;
}

// Rows of a padded LSE past the sequence's own length get +inf; tokens after the last packed
// sequence get o = 0 and an LSE of -inf. The tiles of a head, of `queries` each, share them; `thread` is one of
// kThreads.
template <Element kElement, int kThreads>
__device__ __forceinline__ void write_outside(const ForwardParams& p, const Sequence& seq,
                                              const TilePlace& tile, int queries, int thread) {
  using Bits = typename Elements<kElement>::Bits;
  const int first = tile.block * queries;
  if (p.lse.data != nullptr && p.lse.padded != 0) {
    for (int i = first + thread; i < smaller(first + queries, p.lse.padded); i += kThreads) {
      if (i >= seq.sq) *lse_at(p, seq, tile.b, tile.h, i) = infinity();
    }
  }
  for (i64 i = first; i < seq.tail; i += static_cast<i64>(p.query_blocks) * queries) {
    for (i64 r = i; r < smaller<i64>(i + queries, seq.tail); ++r) {
      Bits* o = QueryRows<Bits>(p.o, tile.b, seq.q_start + seq.sq, tile.h).base + r * p.o.s_stride;
      for (int d = thread; d < p.dv; d += kThreads) o[d * p.o.d_stride] = 0;
      if (thread == 0 && p.lse.data != nullptr && p.lse.packed != 0) {
        *lse_at(p, seq, tile.b, tile.h, seq.sq + r) = -infinity();
      }
    }
  }
}

template <typename W, typename S>
__device__ __forceinline__ void write_lse(const ForwardParams& p, const Sequence& seq,
                                          const TilePlace& tile, const S& softmax) {
  if (p.lse.data == nullptr || threadIdx.x % 4 != 0 || W::half() != 0) return;
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = tile.block * W::kQueries + thread_row<W>(m, half);
      if (i < seq.sq) *lse_at(p, seq, tile.b, tile.h, i) = softmax.lse[m][half];
    }
  }
}

template <typename W, typename S>
__device__ __forceinline__ void scale_values(typename W::Values& o, const S& softmax,
                                             float factor) {
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = softmax.inverse[m][half] * factor;
#pragma unroll
      for (int d = 0; d < W::kWidthTiles; ++d) {
        o[m][d][2 * half] *= scale;
        o[m][d][2 * half + 1] *= scale;
      }
    }
  }
}

// O to memory, from `column0` on. 16-bit rows go through this warp's part of the Q tile, which nobody
// else reads, so that a row leaves in chunks of 16 bytes.
template <Element kElement, bool kAligned, typename W>
__device__ __forceinline__ void write_values(const ForwardParams& p, const Sequence& seq,
                                             const TilePlace& tile, const typename W::Values& o,
                                             u32 q_tile, int column0 = 0) {
  using E = Elements<kElement>;
  using Bits = typename E::Bits;
  const int lane = threadIdx.x % 32, t = lane % 4, first = tile.block * W::kQueries;
  QueryRows<Bits> to(p.o, tile.b, seq.q_start, tile.h);
  column0 += W::half() * W::kWarpWidth;
  to.base += column0 * p.o.d_stride;
  const int dv = p.dv - column0;
  if constexpr (kAligned && kElement != Element::f32) {
    q_tile += W::half() * W::QTile::kPartBytes;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = thread_row<W>(m, half);
#pragma unroll
        for (int d = 0; d < W::kWidthTiles; ++d) {
          store_shared(q_tile + W::QTile::chunk(row, d) + 4 * t,
                       E::pack(o[m][d][2 * half], o[m][d][2 * half + 1]));
        }
      }
    }
    __syncwarp();
    // A lane keeps its columns.
    constexpr int kRowChunks = W::kWidthTiles;
    constexpr int kAcross = 32 % kRowChunks == 0 ? kRowChunks : kRowChunks % 8 == 0 ? 8 : 4;
    constexpr int kStep = 32 / kAcross;
    const int row = W::first_row() + lane / kAcross, chunk = lane % kAcross;
    Bits* at = to(first + row) + chunk * 8;
#pragma unroll
    for (int c = 0; c < kRowChunks; c += kAcross) {
      const int rows = (chunk + c) * 8 < dv ? seq.sq - first - row : 0;
#pragma unroll
      for (int r = 0; r < W::kWarpRows; r += kStep) {
        u32 x[4];
        load_shared(x, q_tile + W::QTile::chunk(row + r, chunk + c));
        store_global(at + r * p.o.s_stride + c * 8, x, r < rows);
      }
    }
  } else {
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = first + thread_row<W>(m, half);
        if (i >= seq.sq) continue;
        Bits* row = to(i);
#pragma unroll
        for (int d = 0; d < W::kWidthTiles; ++d) {
          const int column = 8 * d + 2 * t;
          const float x = o[m][d][2 * half], y = o[m][d][2 * half + 1];
          if constexpr (kAligned) {
            store_global(row + column, x, y, column < dv);
          } else {
            if (column < dv) row[column * p.o.d_stride] = E::from_float(x);
            if (column + 1 < dv) row[(column + 1) * p.o.d_stride] = E::from_float(y);
          }
        }
      }
    }
  }
}

}  // namespace attune::kernel
