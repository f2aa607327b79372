// attended() against the contract read key by key, and where sequences lie.
#include "problem/lengths.h"

#include <gtest/gtest.h>

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <cstdint>
#include <limits>
#include <vector>

namespace attune {
namespace {

// The contract, word for word, in 128 bits.
bool may_attend(const Mask& mask, std::int64_t i, std::int64_t j, std::int64_t sq,
                std::int64_t sk) {
  __extension__ typedef __int128 Wide;
  Wide c = static_cast<Wide>(i) + mask.offset;
  if (mask.diagonal == Diagonal::bottom_right) c += sk - sq;
  if (mask.causal && j > c) return false;
  if (mask.left >= 0 && j < c - mask.left) return false;
  if (mask.right >= 0 && j > c + mask.right) return false;
  return true;
}

void expect_same(const Mask& mask, std::int64_t sq, std::int64_t sk) {
  Interval before;
  for (std::int64_t i = 0; i < sq; ++i) {
    const Interval got = attended(mask, i, sq, sk);
    ASSERT_LE(0, got.lo);
    ASSERT_LE(got.lo, got.hi);
    ASSERT_LE(got.hi, sk);
    if (i > 0) {
      ASSERT_GE(got.lo, before.lo);
      ASSERT_GE(got.hi, before.hi);
    }
    before = got;
    for (std::int64_t j = 0; j < sk; ++j) {
      ASSERT_EQ(got.lo <= j && j < got.hi, may_attend(mask, i, j, sq, sk))
          << "causal " << mask.causal << " top-left " << (mask.diagonal == Diagonal::top_left)
          << " offset " << mask.offset << " window " << mask.left << "," << mask.right << " i " << i
          << " j " << j << " sq " << sq << " sk " << sk;
    }
  }
}

constexpr std::int64_t kFar = std::int64_t{1} << 62;
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

TEST(Attended, AgreesWithTheContract) {
  for (const bool causal : {false, true}) {
    for (const Diagonal diagonal : {Diagonal::top_left, Diagonal::bottom_right}) {
      for (const std::int64_t offset :
           {std::int64_t{0}, std::int64_t{1}, std::int64_t{-3}, std::int64_t{9}, -kFar, kFar}) {
        for (const std::int64_t left : {std::int64_t{-1}, std::int64_t{0}, std::int64_t{2}, kMax}) {
          for (const std::int64_t right :
               {std::int64_t{-1}, std::int64_t{0}, std::int64_t{3}, kMax}) {
            const Mask mask{causal, diagonal, offset, left, right};
            for (const std::int64_t sq : {0, 1, 5, 8}) {
              for (const std::int64_t sk : {0, 1, 5, 7}) expect_same(mask, sq, sk);
            }
          }
        }
      }
    }
  }
}

TEST(Attended, HoldsAtTheLargestLengths) {
  constexpr std::int64_t kLong = 2147483647 - 4096;
  const Mask causal{.causal = true, .left = 1024};
  const Interval last = attended(causal, kLong - 1, kLong, kLong);
  EXPECT_EQ(last.lo, kLong - 1 - 1024);
  EXPECT_EQ(last.hi, kLong);
  // One query over many keys sees the end of them from the bottom right, the start from the top.
  EXPECT_EQ(attended({.causal = true}, 0, 1, kLong).hi, kLong);
  EXPECT_EQ(attended({.causal = true, .diagonal = Diagonal::top_left}, 0, 1, kLong).hi, 1);
}

TEST(Sequence, ReadsDenseLengths) {
  Problem p;
  p.b = 2;
  p.sq = 5;
  p.sk = 7;
  std::vector<std::int32_t> lengths = {3, 99, 7};
  Arguments a;
  p.key_lengths = true;
  a.key_lengths = TensorView::contiguous(lengths.data(), DType::i32, {2});
  a.key_lengths.strides[0] = 2;
  const Sequence s = sequence(p, a, 1);
  EXPECT_EQ(s.q_start, 0);
  EXPECT_EQ(s.sq, 5);
  EXPECT_EQ(s.k_start, 0);
  EXPECT_EQ(s.sk, 7);
  EXPECT_EQ(sequence(p, a, 0).sk, 3);
}

TEST(Sequence, ReadsPackedLengthsAndKeyLengthsInsideTheirBlocks) {
  Problem p;
  p.b = 2;
  p.sq = p.sk = 8;
  p.packed_q = p.packed_k = true;
  std::vector<std::int32_t> q = {0, 3, 8};
  std::vector<std::int32_t> k = {0, 8, 12};
  std::vector<std::int32_t> lengths = {6, 0};
  Arguments a;
  a.cu_seqlens_q = TensorView::contiguous(q.data(), DType::i32, {3});
  a.cu_seqlens_k = TensorView::contiguous(k.data(), DType::i32, {3});
  a.key_lengths = TensorView::contiguous(lengths.data(), DType::i32, {2});
  Sequence s = sequence(p, a, 1);
  EXPECT_EQ(s.q_start, 3);
  EXPECT_EQ(s.sq, 5);
  EXPECT_EQ(s.k_start, 8);
  EXPECT_EQ(s.sk, 4);
  p.key_lengths = true;
  EXPECT_EQ(sequence(p, a, 0).sk, 6);
  EXPECT_EQ(sequence(p, a, 1).sk, 0);
  EXPECT_EQ(sequence(p, a, 1).k_start, 8);
}

}  // namespace
}  // namespace attune
