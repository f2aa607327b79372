// Philox4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11), of blocks that have much of it in
// common. A block is what a counter of four words becomes.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

struct PhiloxBlock {
  u32 word[4];
};

// One of a block's words, without an index into registers.
__device__ __forceinline__ u32 word_of(const PhiloxBlock& x, u32 n) {
  const u32 low = n == 0 ? x.word[0] : x.word[1], high = n == 2 ? x.word[2] : x.word[3];
  return n < 2 ? low : high;
}

// The keys of a seed's rounds. Where all lanes are known to have the same seed, they cost no register.
struct SeedKeys {
  u32 k0, k1;
  __device__ __forceinline__ SeedKeys(u32 k0, u32 k1) : k0(k0), k1(k1) {}
  __device__ __forceinline__ explicit SeedKeys(u64 seed)
      : SeedKeys(static_cast<u32>(seed), static_cast<u32>(seed >> 32)) {}
  [[nodiscard]] __device__ __forceinline__ u32 first(int round) const {
    return k0 + round * 0x9E3779B9u;
  }
  [[nodiscard]] __device__ __forceinline__ u32 second(int round) const {
    return k1 + round * 0xBB67AE85u;
  }
};

constexpr u64 kPhiloxFirst = 0xD2511F53u, kPhiloxSecond = 0xCD9E8D57u;

// x after the rounds from kBegin to before kEnd.
template <int kBegin, int kEnd>
__device__ __forceinline__ PhiloxBlock philox_rounds(PhiloxBlock x, const SeedKeys& keys) {
#pragma unroll
  for (int round = kBegin; round < kEnd; ++round) {
    const u64 p0 = x.word[0] * kPhiloxFirst, p1 = x.word[2] * kPhiloxSecond;
    x = {{static_cast<u32>(p1 >> 32) ^ x.word[1] ^ keys.first(round), static_cast<u32>(p1),
          static_cast<u32>(p0 >> 32) ^ x.word[3] ^ keys.second(round), static_cast<u32>(p0)}};
  }
  return x;
}

// Of cuRAND's stream, Philox4x32-10 of counters n, whose number n has the same high word: half of what their second
// round multiplies is the same. Block n holds words 4 n .. 4 n + 3 of the stream.
struct WordBlocks {
  SeedKeys keys;
  u32 c2, c3;  // what the second round leaves of the high word

  __device__ __forceinline__ WordBlocks(const SeedKeys& keys, u32 high) : keys(keys) {
    const u64 p = (high ^ keys.first(0)) * kPhiloxFirst;
    c2 = static_cast<u32>(p >> 32) ^ keys.second(1);
    c3 = static_cast<u32>(p);
  }

  // Block number `low` + 2^32 `high`.
  [[nodiscard]] __device__ __forceinline__ PhiloxBlock at(u32 low) const {
    return of_product(low * kPhiloxFirst);
  }
  // The one `by` behind number `low`, whose first product the caller has: a sum is cheaper than a product.
  [[nodiscard]] __device__ __forceinline__ PhiloxBlock behind(u64 product, u32 by) const {
    return of_product(product + by * kPhiloxFirst);
  }

 private:
  [[nodiscard]] __device__ __forceinline__ PhiloxBlock of_product(u64 p) const {
    const u64 q = (static_cast<u32>(p >> 32) ^ keys.second(0)) * kPhiloxSecond;
    return philox_rounds<2, 10>({{static_cast<u32>(q >> 32) ^ keys.first(1), static_cast<u32>(q),
                                  static_cast<u32>(p) ^ c2, c3}},
                                keys);
  }
};

// Of FA2's stream, Philox4x32-7 of counters (n, row, column), 64 and twice 32 bits, those of an n and a row: of the
// six products of the first three rounds four are the same.
struct ByteBlocks {
  SeedKeys keys;
  u32 first, second;       // what the first and the second round add to the column
  u32 third, word1, last;  // and the third

  __device__ __forceinline__ ByteBlocks(const SeedKeys& keys, u64 n, u32 row) : keys(keys) {
    const u64 p0 = static_cast<u32>(n) * kPhiloxFirst, p1 = row * kPhiloxSecond;
    first = static_cast<u32>(p0 >> 32) ^ keys.second(0);
    second = static_cast<u32>(p1) ^ keys.first(1);
    const u64 q0 =
        (static_cast<u32>(p1 >> 32) ^ static_cast<u32>(n >> 32) ^ keys.first(0)) * kPhiloxFirst;
    const u64 q1 =
        (static_cast<u32>(q0 >> 32) ^ static_cast<u32>(p0) ^ keys.second(1)) * kPhiloxSecond;
    third = static_cast<u32>(q1 >> 32) ^ keys.first(2);
    word1 = static_cast<u32>(q1);
    last = static_cast<u32>(q0) ^ keys.second(2);
  }

  [[nodiscard]] __device__ __forceinline__ PhiloxBlock at(u32 column) const {
    const u64 p = (first ^ column) * kPhiloxSecond;
    const u64 q = (static_cast<u32>(p >> 32) ^ second) * kPhiloxFirst;
    return philox_rounds<3, 7>({{static_cast<u32>(p) ^ third, word1,
                                 static_cast<u32>(q >> 32) ^ last, static_cast<u32>(q)}},
                               keys);
  }
};

}  // namespace attune::kernel
