// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) and the
// decision to keep an element.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

struct PhiloxBlock {
  u32 word[4];
};

struct SeedKeys {  // keys from a seed in registers
  u32 k0, k1;
  __device__ __forceinline__ explicit SeedKeys(u64 seed)
      : k0(static_cast<u32>(seed)), k1(static_cast<u32>(seed >> 32)) {}
  [[nodiscard]] __device__ __forceinline__ u32 first(int round) const {
    return k0 + round * 0x9E3779B9u;
  }
  [[nodiscard]] __device__ __forceinline__ u32 second(int round) const {
    return k1 + round * 0xBB67AE85u;
  }
};

struct ParameterKeys {  // keys that the host has filled in
  const Dropout& dropout;
  [[nodiscard]] __device__ __forceinline__ u32 first(int round) const {
    return dropout.round_keys[2 * round];
  }
  [[nodiscard]] __device__ __forceinline__ u32 second(int round) const {
    return dropout.round_keys[2 * round + 1];
  }
};

// The block that holds words 4 * block .. 4 * block + 3 of the seed's stream.
template <typename Keys>
__device__ __forceinline__ PhiloxBlock philox(const Keys& keys, u64 block) {
  u32 c0 = static_cast<u32>(block), c1 = static_cast<u32>(block >> 32), c2 = 0, c3 = 0;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u64 p0 = static_cast<u64>(c0) * 0xD2511F53u;
    const u64 p1 = static_cast<u64>(c2) * 0xCD9E8D57u;
    c0 = static_cast<u32>(p1 >> 32) ^ c1 ^ keys.first(round);
    c2 = static_cast<u32>(p0 >> 32) ^ c3 ^ keys.second(round);
    c1 = static_cast<u32>(p1);
    c3 = static_cast<u32>(p0);
  }
  return {{c0, c1, c2, c3}};
}

// The stream of one call, and which of its words keep their element.
struct DropoutStream {
  u64 seed, offset;
  u32 keep_from;
  bool keep_none;
  __device__ __forceinline__ explicit DropoutStream(const Dropout& d)
      : seed(d.state == nullptr ? d.seed : d.state[0]),
        offset(d.state == nullptr ? d.offset : d.state[1]),
        keep_from(d.keep_from),
        keep_none(d.keep_none != 0) {}

  // Whether nothing is ever dropped.
  [[nodiscard]] __device__ __forceinline__ bool keeps_all() const {
    return keep_from == 0 && !keep_none;
  }
  [[nodiscard]] __device__ __forceinline__ bool keeps(u32 word) const {
    return word >= keep_from && !keep_none;
  }
  // Whether one element is kept.
  [[nodiscard]] __device__ __forceinline__ bool keep(u64 index) const {
    const u64 n = offset + index;
    const PhiloxBlock block = philox(SeedKeys(seed), n >> 2);
    const u32 phase = static_cast<u32>(n) & 3u;
    const u32 low = phase == 0 ? block.word[0] : block.word[1];
    const u32 high = phase == 2 ? block.word[2] : block.word[3];
    return keeps(phase < 2 ? low : high);
  }
};

}  // namespace attune::kernel
