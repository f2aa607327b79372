// What dropout by FA2's stream leaves of a warp's share of a warpgroup's P, packed as the operand of a product.
#pragma once

#include <attune/arch/bytes.cuh>
#include <attune/part/dropout.cuh>

namespace attune::kernel {

// The four elements that a thread has of a column tile are the four bytes of a word of its stream's blocks, and of as
// many bits here: the tile's number says which of each byte.
template <typename W>
struct KeptBytes {
  static_assert(W::kTogether == 2 && W::kRowTiles == 1 && W::kKeyTiles % 4 == 0);
  static constexpr int kWords = (W::kKeyTiles + 7) / 8;
  u32 bits[kWords];

  // Of the elements from `row`, this thread's first query, and key j on.
  __device__ __forceinline__ void draw(const ForwardParams& params, int b, int h, int row, int j) {
    const ByteStream stream(params.dropout);
    const ByteBlocks blocks = stream.blocks(stream.keys(), head_number(params, b, h), row,
                                            static_cast<int>(threadIdx.x % 4));
#pragma unroll
    for (int n = 0; n < W::kKeyTiles; n += 4) {
      const PhiloxBlock x = blocks.at(static_cast<u32>(j) / 32 + n / 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const u32 before = (n + i) % 8 == 0 ? 0 : bits[n / 8] >> 1;
        bits[n / 8] = before | stream.kept(x.word[i]);
      }
    }
  }

  // Drops elements of P; 1 / (1 - dropout) waits until the end.
  template <int kSteps>
  __device__ __forceinline__ void apply(u32 (&weights)[kSteps][4]) const {
    static_assert(2 * kSteps == W::kKeyTiles);
#pragma unroll
    for (int n = 0; n < W::kKeyTiles; ++n) {
      const u32 signs = bits[n / 8] << (7 - bit(n));
      weights[n / 2][n % 2 * 2] &= spread_signs<0>(signs);
      weights[n / 2][n % 2 * 2 + 1] &= spread_signs<2>(signs);
    }
  }

 private:
  static constexpr int bit(int n) {
    const int last = n / 8 * 8 + 7 < W::kKeyTiles ? 7 : (W::kKeyTiles - 1) % 8;
    return 7 - last + n % 8;
  }
};

template <typename W, bool kDrops, bool kBytes>
struct KeptOf {
  using Type = KeptElements<W, kDrops>;
};
template <typename W>
struct KeptOf<W, true, true> {
  using Type = KeptBytes<W>;
};

}  // namespace attune::kernel
