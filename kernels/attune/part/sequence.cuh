// Where a sequence lies and which keys its queries attend to. Lengths and page tables come from
// device memory that no host has checked, so they are clamped to what the tensors hold.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

template <typename T>
__device__ __forceinline__ T smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
__device__ __forceinline__ T larger(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
__device__ __forceinline__ T clamp(T x, T low, T high) {
  return smaller(larger(x, low), high);
}

struct Sequence {
  int q_start, sq, k_start, sk;
  int tail;  // packed: tokens after the last sequence's end that belong to nobody; else 0
};

__device__ __forceinline__ Sequence sequence_of(const ForwardParams& p, int b) {
  Sequence s{0, p.sq, 0, p.sk, 0};
  if (p.cu_seqlens_q.data != nullptr) {
    const int* at = p.cu_seqlens_q.data + b * p.cu_seqlens_q.stride;
    s.q_start = clamp(at[0], 0, p.total_q);
    const int end = clamp(at[p.cu_seqlens_q.stride], s.q_start, p.total_q);
    s.sq = smaller(end - s.q_start, p.sq);
    s.tail = b == p.b - 1 ? p.total_q - end : 0;
  }
  if (p.cu_seqlens_k.data != nullptr) {
    const int* at = p.cu_seqlens_k.data + b * p.cu_seqlens_k.stride;
    s.k_start = clamp(at[0], 0, p.total_k);
    const int end = clamp(at[p.cu_seqlens_k.stride], s.k_start, p.total_k);
    s.sk = smaller(end - s.k_start, p.sk);
  }
  if (p.key_lengths.data != nullptr) {
    s.sk = clamp(p.key_lengths.data[b * p.key_lengths.stride], 0, s.sk);
  }
  return s;
}

// Keys [begin, end), with 0 <= begin <= end <= sk.
struct Range {
  int begin, end;
};

// The two sides of the mask for the rows of a tile, as keys counted from the tile's first query.
// Clamped so that 32 bits do: no tile has kMostRows rows, and no length comes that close to 2^31.
struct MaskSides {
  static constexpr int kMostRows = 1024;
  int low, high, sk;
  MaskSides() = default;
  __device__ __forceinline__ MaskSides(const ForwardParams& p, const Sequence& s, int first)
      : sk(s.sk) {
    const i64 diagonal = first + (p.bottom_right != 0 ? static_cast<i64>(s.sk) - s.sq : 0);
    low = static_cast<int>(clamp<i64>(diagonal + p.mask_low, -kMostRows, sk));
    high = static_cast<int>(clamp<i64>(diagonal + p.mask_high, -kMostRows, sk));
  }
  // Keys [begin, end) of row `row` of the tile; empty where begin >= end. Neither end ever decreases
  // as the row grows.
  [[nodiscard]] __device__ __forceinline__ int begin(int row) const {
    return clamp(low + row, 0, sk);
  }
  [[nodiscard]] __device__ __forceinline__ int end(int row) const {
    return clamp(high + row, 0, sk);
  }
};

}  // namespace attune::kernel
