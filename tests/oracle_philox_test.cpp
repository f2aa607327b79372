// Philox4x32-10 against the vectors that its authors publish with Random123 (kat_vectors), and what
// dropout makes of its words.
#include <gtest/gtest.h>

#include <array>
#include <attune/oracle.hpp>
#include <cmath>
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

}  // namespace
}  // namespace attune::oracle
