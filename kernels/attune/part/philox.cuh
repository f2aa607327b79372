// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) and the
// decision to keep an element.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

struct PhiloxBlock {
  u32 word[4];
};

// The block that holds words 4 * block .. 4 * block + 3 of the seed's stream.
__device__ __forceinline__ PhiloxBlock philox(u64 seed, u64 block) {
  u32 c0 = static_cast<u32>(block), c1 = static_cast<u32>(block >> 32), c2 = 0, c3 = 0;
  u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u64 p0 = static_cast<u64>(c0) * 0xD2511F53u;
    const u64 p1 = static_cast<u64>(c2) * 0xCD9E8D57u;
    c0 = static_cast<u32>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<u32>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<u32>(p1);
    c3 = static_cast<u32>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
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

  // Bit e: whether element `index + e` is kept, for four neighbours.
  [[nodiscard]] __device__ __forceinline__ u32 keep4(u64 index) const {
    const u64 n = offset + index;
    const u32 phase = static_cast<u32>(n) & 3u;
    PhiloxBlock block = philox(seed, n >> 2);
    u32 kept = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) kept |= static_cast<u32>(block.word[e] >= keep_from) << e;
    if (phase != 0) {  // the four straddle two blocks
      block = philox(seed, (n + 4) >> 2);  // n wraps before it is divided
#pragma unroll
      for (int e = 0; e < 4; ++e) kept |= static_cast<u32>(block.word[e] >= keep_from) << (e + 4);
      kept >>= phase;
    }
    return keep_none ? 0u : kept & 15u;
  }
};

}  // namespace attune::kernel
