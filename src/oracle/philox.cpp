// Philox4x32 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
// (SC'11), section 3.3 and table 2, and the keep decisions of dropout.
#include "oracle/philox.h"

#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <cmath>
#include <cstdint>

namespace attune::oracle {
namespace {

constexpr std::uint32_t kMultiplier0 = 0xD2511F53U;
constexpr std::uint32_t kMultiplier1 = 0xCD9E8D57U;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9U;  // golden ratio
constexpr std::uint32_t kWeyl1 = 0xBB67AE85U;  // sqrt(3) - 1

Philox philox4x32(int rounds, const std::uint32_t counter[4], const std::uint32_t key[2]) {
  Philox x{{counter[0], counter[1], counter[2], counter[3]}};
  std::uint32_t k0 = key[0];
  std::uint32_t k1 = key[1];
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{kMultiplier0} * x.word[0];
    const std::uint64_t product1 = std::uint64_t{kMultiplier1} * x.word[2];
    x = {{static_cast<std::uint32_t>(product1 >> 32) ^ x.word[1] ^ k0,
          static_cast<std::uint32_t>(product1),
          static_cast<std::uint32_t>(product0 >> 32) ^ x.word[3] ^ k1,
          static_cast<std::uint32_t>(product0)}};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return x;
}

}  // namespace

Philox philox4x32_10(const std::uint32_t counter[4], const std::uint32_t key[2]) {
  return philox4x32(10, counter, key);
}

bool dropout_keep(std::uint64_t seed, std::uint64_t offset, std::uint64_t index,
                  double probability) {
  return uniform(Stream(seed).word(offset + index)) > static_cast<float>(probability);
}

bool dropout_keep(const Problem& problem, std::uint64_t seed, std::uint64_t offset, std::int64_t b,
                  std::int64_t h, std::int64_t i, std::int64_t j) {
  return KeptRow(problem, seed, offset, b, h, i)(j);
}

KeptRow::KeptRow(const Problem& problem, std::uint64_t seed, std::uint64_t offset, std::int64_t b,
                 std::int64_t h, std::int64_t i)
    : kind_(problem.dropout_stream),
      probability_(static_cast<float>(problem.dropout)),
      seed_(seed),
      i_(i),
      words_(seed) {
  const auto word = [](std::int64_t x) { return static_cast<std::uint64_t>(x); };
  const std::uint64_t head = word(b) * word(problem.hq) + word(h);
  first_ = offset + (kind_ == DropoutStream::fa2
                         ? head * 32
                         : (head * word(problem.sq) + word(i)) * word(problem.sk));
}

bool KeptRow::operator()(std::int64_t j) {
  if (kind_ == DropoutStream::fa2) {
    return byte(j) <= std::floor(static_cast<double>(1.0F - probability_) * 255.0);
  }
  return uniform(words_.word(first_ + static_cast<std::uint64_t>(j))) > probability_;
}

// FlashAttention-2's csrc/flash_attn/src/dropout.h and philox.cuh: 16 queries by 32 keys share 32 blocks, one for
// each lane of the warp that has them as fragments of its products, of 7 rounds.
std::uint8_t KeptRow::byte(std::int64_t j) const {
  const std::uint64_t number = first_ + static_cast<std::uint64_t>(i_ % 8 * 4 + j % 8 / 2);
  const std::uint32_t counter[4] = {
      static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32),
      static_cast<std::uint32_t>(i_ / 16), static_cast<std::uint32_t>(j / 32)};
  const std::uint32_t key[2] = {static_cast<std::uint32_t>(seed_),
                                static_cast<std::uint32_t>(seed_ >> 32)};
  const std::uint32_t word = philox4x32(7, counter, key).word[j % 32 / 8];
  return static_cast<std::uint8_t>(word >> (8 * (i_ % 16 / 8 * 2 + j % 2)));
}

}  // namespace attune::oracle
