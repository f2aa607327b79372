// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) and the
// decision to keep an element.
#pragma once

#include <attune/params.h>

#include <attune/part/uniform.cuh>

namespace attune::kernel {

struct PhiloxBlock {
  u32 word[4];
};

// The keys of a seed's ten rounds. Where all lanes are known to have the same seed, they cost no register.
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

// Blocks of a seed's stream whose numbers have the same high word: half of what their second round multiplies is
// the same. Block n holds words 4 n .. 4 n + 3 of the stream.
struct PhiloxBlocks {
  static constexpr u64 kFirst = 0xD2511F53u, kSecond = 0xCD9E8D57u;
  SeedKeys keys;
  u32 c2, c3;  // what the second round leaves of the high word

  __device__ __forceinline__ PhiloxBlocks(const SeedKeys& keys, u32 high) : keys(keys) {
    const u64 p = (high ^ keys.first(0)) * kFirst;
    c2 = static_cast<u32>(p >> 32) ^ keys.second(1);
    c3 = static_cast<u32>(p);
  }

  // Block number `low` + 2^32 `high`.
  [[nodiscard]] __device__ __forceinline__ PhiloxBlock at(u32 low) const {
    const u64 p = low * kFirst;
    const u64 q = (static_cast<u32>(p >> 32) ^ keys.second(0)) * kSecond;
    PhiloxBlock x{{static_cast<u32>(q >> 32) ^ keys.first(1), static_cast<u32>(q),
                   static_cast<u32>(p) ^ c2, c3}};
#pragma unroll
    for (int round = 2; round < 10; ++round) {
      const u64 p0 = x.word[0] * kFirst, p1 = x.word[2] * kSecond;
      x = {{static_cast<u32>(p1 >> 32) ^ x.word[1] ^ keys.first(round), static_cast<u32>(p1),
            static_cast<u32>(p0 >> 32) ^ x.word[3] ^ keys.second(round), static_cast<u32>(p0)}};
    }
    return x;
  }
};

// The stream of one call, and which of its words keep their element.
struct DropoutStream {
  u64 seed, offset;
  u32 keep_from;  // 0: all words or none do
  bool keep_none;
  __device__ __forceinline__ explicit DropoutStream(const Dropout& d)
      : seed(d.state == nullptr ? d.seed : d.state[0]),
        offset(d.state == nullptr ? d.offset : d.state[1]),
        keep_from(d.keep_from),
        keep_none(d.keep_none != 0) {}

  [[nodiscard]] __device__ __forceinline__ SeedKeys keys() const {
    return {uniform(static_cast<u32>(seed)), uniform(static_cast<u32>(seed >> 32))};
  }

  [[nodiscard]] __device__ __forceinline__ PhiloxBlock block(u64 number) const {
    return PhiloxBlocks(SeedKeys(seed), static_cast<u32>(number >> 32))
        .at(static_cast<u32>(number));
  }

  // Word number `index` of the stream.
  [[nodiscard]] __device__ __forceinline__ u32 word(u64 index) const {
    const PhiloxBlock x = block(index >> 2);
    const u32 phase = static_cast<u32>(index) & 3u;
    const u32 low = phase == 0 ? x.word[0] : x.word[1];
    const u32 high = phase == 2 ? x.word[2] : x.word[3];
    return phase < 2 ? low : high;
  }

  // It and the three that follow it.
  [[nodiscard]] __device__ __forceinline__ PhiloxBlock words(u64 index) const {
    const PhiloxBlock x = block(index >> 2),
                      next = block((index + 4) >> 2);  // it wraps before it is divided
    const u32 phase = static_cast<u32>(index) & 3u;
    PhiloxBlock words = x;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#pragma unroll
      for (u32 by = 1; by < 4; ++by) {
        const u32 other = e + by < 4 ? x.word[(e + by) % 4] : next.word[(e + by) % 4];
        if (phase == by) words.word[e] = other;
      }
    }
    return words;
  }

  // Whether one element is kept.
  [[nodiscard]] __device__ __forceinline__ bool keep(u64 index) const {
    return word(offset + index) >= keep_from && !keep_none;
  }
};

}  // namespace attune::kernel
