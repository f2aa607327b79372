// The random numbers of one call, and the decision to keep an element.
#pragma once

#include <attune/part/philox.cuh>
#include <attune/part/uniform.cuh>

namespace attune::kernel {

// Where the numbers of a call begin.
struct DropoutStart {
  u64 seed, offset;
  __device__ __forceinline__ explicit DropoutStart(const Dropout& d)
      : seed(d.state == nullptr ? d.seed : d.state[0]),
        offset(d.state == nullptr ? d.offset : d.state[1]) {}

  [[nodiscard]] __device__ __forceinline__ SeedKeys keys() const {
    return {uniform(static_cast<u32>(seed)), uniform(static_cast<u32>(seed >> 32))};
  }
};

// cuRAND's stream, a word an element: which of its words keep theirs.
struct WordStream : DropoutStart {
  u32 keep_from;  // 0: all words or none do
  bool keep_none;
  __device__ __forceinline__ explicit WordStream(const Dropout& d)
      : DropoutStart(d), keep_from(d.keep_from), keep_none(d.keep_none != 0) {}

  [[nodiscard]] __device__ __forceinline__ PhiloxBlock block(u64 number) const {
    return WordBlocks(SeedKeys(seed), static_cast<u32>(number >> 32)).at(static_cast<u32>(number));
  }

  // Word number `index` of the stream.
  [[nodiscard]] __device__ __forceinline__ u32 word(u64 index) const {
    return word_of(block(index >> 2), static_cast<u32>(index) & 3u);
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
};

// FA2's stream, a byte an element. 32 blocks have those of a patch of 16 queries x 32 keys of a head, block (i % 8, j
// % 8 / 2) of queries i and i + 8 and, of each eight keys, two neighbours: the one byte by byte, the other word by
// word.
struct ByteStream : DropoutStart {
  u32 keep_to;  // the largest byte that keeps its element, four times
  __device__ __forceinline__ explicit ByteStream(const Dropout& d)
      : DropoutStart(d), keep_to(d.keep_to * 0x01010101u) {}

  // The blocks of a row of patches that have query i and of each eight keys number `pair` of the twos.
  [[nodiscard]] __device__ __forceinline__ ByteBlocks blocks(const SeedKeys& keys, u64 head, int i,
                                                             int pair) const {
    return {keys, offset + head * 32 + i % 8 * 4 + pair, static_cast<u32>(i) / 16};
  }

  // In the sign of each byte whether it keeps its element: lower bits by a difference that does not borrow, signs by a
  // table of three.
  [[nodiscard]] __device__ __forceinline__ u32 kept(u32 bytes) const {
    const u32 not_above = (keep_to | 0x80808080u) - (bytes & 0x7f7f7f7fu);
    return ((keep_to & ~bytes) | (~(keep_to ^ bytes) & not_above)) & 0x80808080u;
  }
};

__device__ __forceinline__ u64 head_number(const ForwardParams& p, int b, int h) {
  return static_cast<u64>(b) * p.hq + h;
}

// Number of the element (b, h, i, 0) in a stream of words.
__device__ __forceinline__ u64 dropout_row(const ForwardParams& p, int b, int h, int i) {
  return (head_number(p, b, h) * p.sq + i) * p.sk;
}

// Whether one element is kept.
__device__ __forceinline__ bool keeps_element(const ForwardParams& p, int b, int h, int i, int j) {
  if (p.dropout.bytes != 0) {
    const ByteStream stream(p.dropout);
    const PhiloxBlock x =
        stream.blocks(SeedKeys(stream.seed), head_number(p, b, h), i, j % 8 / 2).at(j / 32);
    const u32 kept = stream.kept(word_of(x, static_cast<u32>(j) % 32 / 8));
    return (kept >> (8 * (i % 16 / 8 * 2 + j % 2)) & 0x80u) != 0;
  }
  const WordStream stream(p.dropout);
  return stream.word(stream.offset + dropout_row(p, b, h, i) + j) >= stream.keep_from &&
         !stream.keep_none;
}

}  // namespace attune::kernel
