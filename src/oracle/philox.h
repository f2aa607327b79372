// Dropout's random numbers, one row of P at a time.
#pragma once

#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <cstdint>

namespace attune::oracle {

// cuRAND's uniform in (0, 1] of one word, in float32: float(word) * 2^-32 + 2^-33. The product is
// exact, so that a contracted multiply-add gives the same bits.
[[nodiscard]] inline float uniform(std::uint32_t word) {
  return static_cast<float>(word) * 0x1p-32F + 0x1p-33F;
}

// Word number `position` of the stream of `seed`. Neighbours share a Philox block of four words;
// the last block is remembered.
class Stream {
 public:
  explicit Stream(std::uint64_t seed)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)} {}

  [[nodiscard]] std::uint32_t word(std::uint64_t position) {
    const std::uint64_t block = position / 4;
    if (!valid_ || block != block_) {
      const std::uint32_t counter[4] = {static_cast<std::uint32_t>(block),
                                        static_cast<std::uint32_t>(block >> 32), 0, 0};
      words_ = philox4x32_10(counter, key_);
      block_ = block;
      valid_ = true;
    }
    return words_.word[position % 4];
  }

 private:
  std::uint32_t key_[2];
  std::uint64_t block_ = 0;
  Philox words_{};
  bool valid_ = false;
};

// Which elements of query i of (sequence b, query head h) a Problem with dropout keeps.
class KeptRow {
 public:
  KeptRow(const Problem& problem, std::uint64_t seed, std::uint64_t offset, std::int64_t b,
          std::int64_t h, std::int64_t i);
  // Key j's.
  [[nodiscard]] bool operator()(std::int64_t j);

 private:
  [[nodiscard]] std::uint8_t byte(std::int64_t j) const;

  DropoutStream kind_;
  float probability_;
  std::uint64_t seed_;
  std::uint64_t first_;  // curand: the row's first word; fa2: the head's first block
  std::int64_t i_;
  Stream words_;
};

}  // namespace attune::oracle
