// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
// (SC'11), section 3.3 and table 2, and the keep decision of dropout.
#include "oracle/philox.h"

#include <attune/oracle.hpp>
#include <cstdint>

namespace attune::oracle {
namespace {

constexpr std::uint32_t kMultiplier0 = 0xD2511F53U;
constexpr std::uint32_t kMultiplier1 = 0xCD9E8D57U;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9U;  // golden ratio
constexpr std::uint32_t kWeyl1 = 0xBB67AE85U;  // sqrt(3) - 1
constexpr int kRounds = 10;

}  // namespace

Philox philox4x32_10(const std::uint32_t counter[4], const std::uint32_t key[2]) {
  Philox x{{counter[0], counter[1], counter[2], counter[3]}};
  std::uint32_t k0 = key[0];
  std::uint32_t k1 = key[1];
  for (int round = 0; round < kRounds; ++round) {
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

bool dropout_keep(std::uint64_t seed, std::uint64_t offset, std::uint64_t index,
                  double probability) {
  return uniform(Stream(seed).word(offset + index)) > static_cast<float>(probability);
}

}  // namespace attune::oracle
