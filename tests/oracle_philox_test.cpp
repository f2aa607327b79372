// Philox4x32-10 against the vectors that its authors publish with Random123 (kat_vectors), and what
// dropout makes of its words; FA2's stream of Philox4x32-7 against bytes computed elsewhere.
#include <gtest/gtest.h>

#include <array>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "oracle/philox.h"

namespace attune::oracle {
namespace {

using Words = std::array<std::uint32_t, 4>;

Words philox(const Words& counter, const std::array<std::uint32_t, 2>& key) {
  const Philox out = philox4x32_10(counter.data(), key.data());
  return {out.word[0], out.word[1], out.word[2], out.word[3]};
}

TEST(OraclePhilox, MatchesThePublishedVectors) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  constexpr std::uint32_t kOnes = 0xFFFFFFFF;
  EXPECT_EQ(philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(philox({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
            (Words{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
}

TEST(OraclePhilox, StreamPlacesSeedAndPositionInTheRightWords) {
  constexpr std::uint64_t kSeed = 0x0123456789ABCDEF;
  constexpr std::uint64_t kPosition = (std::uint64_t{5} << 34) + 4 * 77 + 2;
  const Words want = philox({77, 5, 0, 0}, {0x89ABCDEF, 0x01234567});
  Stream stream(kSeed);
  EXPECT_EQ(stream.word(kPosition), want[2]);
  EXPECT_EQ(stream.word(kPosition + 1), want[3]);
  EXPECT_EQ(stream.word(kPosition - 2), want[0]);
  EXPECT_EQ(stream.word(kPosition + 2), philox({78, 5, 0, 0}, {0x89ABCDEF, 0x01234567})[0]);
}

TEST(OraclePhilox, UniformLiesAboveZeroAndReachesOne) {
  EXPECT_EQ(uniform(0), 0x1p-33F);
  EXPECT_EQ(uniform(1), 0x1p-32F + 0x1p-33F);
  EXPECT_EQ(uniform(0x80000000), 0.5F);  // 2^-33 is lost in rounding
  EXPECT_EQ(uniform(0xFFFFFFFF), 1.0F);
  EXPECT_EQ(uniform(0xFFFFFF00), 1.0F - 0x1p-24F);
}

TEST(OraclePhilox, KeepsEverythingAtProbabilityZero) {
  for (std::uint64_t index = 0; index < 1000; ++index) {
    EXPECT_TRUE(dropout_keep(42, 0, index, 0.0));
  }
}

TEST(OraclePhilox, OffsetAndIndexAddUp) {
  int kept = 0;
  for (std::uint64_t n = 0; n < 100; ++n) {
    const bool keep = dropout_keep(9, 0, 1000 + n, 0.5);
    EXPECT_EQ(keep, dropout_keep(9, 1000, n, 0.5));
    EXPECT_EQ(keep, dropout_keep(9, 1000 + n, 0, 0.5));
    kept += keep ? 1 : 0;
  }
  EXPECT_GT(kept, 0);
  EXPECT_LT(kept, 100);
}

TEST(OraclePhilox, ComparesInFloat32) {
  // The word that decides is known: u = uniform(word) > p exactly when p is below u.
  const float u = uniform(Stream(3).word(17));
  EXPECT_FALSE(dropout_keep(3, 0, 17, static_cast<double>(u)));
  EXPECT_TRUE(dropout_keep(3, 0, 17, static_cast<double>(std::nextafter(u, 0.0F))));
  // A double a little below u still rounds to u.
  EXPECT_FALSE(dropout_keep(3, 0, 17, static_cast<double>(u) * (1 - 1e-12)));
}

TEST(OraclePhilox, KeepsTheRightShare) {
  constexpr int kDraws = 200000;
  for (const double probability : {0.1, 0.5, 0.9}) {
    int kept = 0;
    for (std::uint64_t n = 0; n < kDraws; ++n) {
      kept += dropout_keep(1234, 1 << 20, n, probability) ? 1 : 0;
    }
    const double deviation = std::sqrt(kDraws * probability * (1 - probability));
    EXPECT_NEAR(kept, kDraws * (1 - probability), 5 * deviation) << probability;
  }
}

constexpr std::uint64_t kFa2Seed = 0x0123456789ABCDEF;
constexpr std::uint64_t kFa2Offset = (std::uint64_t{1} << 32) - 50;  // a head's blocks carry

Problem of_fa2(double dropout) {
  Problem p;
  p.b = 3;
  p.hq = p.hkv = 3;
  p.sq = 1001;
  p.sk = 12346;
  p.dropout = dropout;
  p.dropout_stream = DropoutStream::fa2;
  return p;
}

// The byte of an element, from what dropouts of every 256th keep: byte <= 255 - n.
int byte_of(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  for (int n = 1; n < 256; ++n) {
    if (!dropout_keep(of_fa2(n / 256.0), kFa2Seed, kFa2Offset, b, h, i, j)) return 256 - n;
  }
  return 0;
}

// Of Philox4x32-7 in a few lines of Python, with its integers and to_bytes(4, "little").
TEST(OraclePhilox, Fa2sBytesAreThoseOfAnIndependentComputation) {
  EXPECT_EQ(byte_of(0, 0, 0, 0), 23);
  EXPECT_EQ(byte_of(0, 0, 0, 1), 204);
  EXPECT_EQ(byte_of(0, 0, 8, 0), 231);
  EXPECT_EQ(byte_of(0, 1, 7, 6), 76);
  EXPECT_EQ(byte_of(0, 2, 15, 31), 176);
  EXPECT_EQ(byte_of(1, 2, 16, 32), 82);
  EXPECT_EQ(byte_of(1, 0, 5, 77), 56);
  EXPECT_EQ(byte_of(2, 1, 1000, 12345), 55);
  constexpr std::array kRow = {255, 124, 171, 203, 63, 75,  196, 33, 91,  51,  62,
                               102, 61,  46,  123, 49, 141, 11,  80, 156, 170, 120,
                               251, 55,  120, 56,  17, 221, 6,   3,  124, 201};
  for (std::size_t n = 0; n < kRow.size(); ++n) {
    EXPECT_EQ(byte_of(1, 2, 37, 24 + static_cast<std::int64_t>(n)), kRow[n]) << n;
  }
}

// Other lengths, batches and key heads leave an element its byte; the head's number counts all query heads.
TEST(OraclePhilox, Fa2sElementsDependOnNothingElse) {
  const Problem p = of_fa2(0.5);
  Problem other = p;
  other.b = 7;
  other.hkv = 1;
  other.sq = 38;
  other.sk = 71;
  other.d = 16;
  other.packed_q = other.packed_k = true;
  Problem one_sequence = p;
  one_sequence.hq = 9;
  int kept = 0;
  for (std::int64_t b = 0; b < 3; ++b) {
    for (std::int64_t h = 0; h < 3; ++h) {
      for (std::int64_t j = 0; j < 70; ++j) {
        const std::int64_t i = j / 2;
        const bool keep = dropout_keep(p, 5, 11, b, h, i, j);
        EXPECT_EQ(keep, dropout_keep(other, 5, 11, b, h, i, j));
        EXPECT_EQ(keep, dropout_keep(one_sequence, 5, 11, 0, b * 3 + h, i, j));
        kept += keep ? 1 : 0;
      }
    }
  }
  EXPECT_GT(kept, 250);
  EXPECT_LT(kept, 380);
}

// 32 more are the next head's blocks; one more is the next block: the next two keys.
TEST(OraclePhilox, Fa2sOffsetCountsBlocks) {
  const Problem p = of_fa2(0.5);
  int unlike = 0;
  for (std::int64_t j = 0; j < 200; ++j) {
    const bool keep = dropout_keep(p, 5, 96, 0, 1, 3, j);
    EXPECT_EQ(keep, dropout_keep(p, 5, 0, 1, 1, 3, j));
    EXPECT_EQ(keep, dropout_keep(p, 5, 128, 0, 0, 3, j));
    if (j % 8 >= 2) {
      EXPECT_EQ(keep, dropout_keep(p, 5, 97, 0, 1, 3, j - 2));
    }
    unlike += keep != dropout_keep(p, 5, 97, 0, 1, 3, j) ? 1 : 0;
  }
  EXPECT_GT(unlike, 50);
  // 64 bits, which wrap around.
  const std::uint64_t last = ~std::uint64_t{0} - 31;
  for (std::int64_t j = 0; j < 32; ++j) {
    EXPECT_EQ(dropout_keep(p, 5, last, 0, 1, 3, j), dropout_keep(p, 5, 0, 0, 0, 3, j));
  }
}

TEST(OraclePhilox, Fa2sStreamKeepsTheRightShare) {
  constexpr std::int64_t kQueries = 400, kKeys = 500;
  for (const double probability : {1.0 / 256, 0.1, 0.125, 0.5, 0.9, 255.0 / 256}) {
    const Problem p = of_fa2(probability);
    int kept = 0;
    for (std::int64_t i = 0; i < kQueries; ++i) {
      for (std::int64_t j = 0; j < kKeys; ++j) {
        kept += dropout_keep(p, 1234, 1 << 20, 1, 2, i, j) ? 1 : 0;
      }
    }
    const double share = (std::floor(255 * (1 - probability)) + 1) / 256;
    const double draws = kQueries * kKeys;
    EXPECT_NEAR(kept, draws * share, 5 * std::sqrt(draws * share * (1 - share))) << probability;
    EXPECT_NEAR(share, 1 - probability, 1.0 / 256) << probability;
  }
}

}  // namespace
}  // namespace attune::oracle
