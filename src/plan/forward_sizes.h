// What follows from the sizes of a forward pass alone: for the library's plans, and for programs written by
// `attune wrap`, which have the text of this header. So it knows nothing but numbers.
#pragma once

#include <cstdint>

namespace attune {

// Blocks of queries of a head and sequence. At least one even without rows: tokens of no sequence are
// written too.
constexpr std::int64_t forward_query_blocks(std::int64_t rows, std::int64_t tile_queries) {
  const std::int64_t blocks = rows / tile_queries + (rows % tile_queries > 0 ? 1 : 0);
  return blocks > 1 ? blocks : 1;
}

// Things of so many bytes that fill half of the L2 cache, where they stay while all that reads them passes;
// at least one.
constexpr std::int64_t things_in_half_the_cache(std::int64_t bytes, std::int64_t cache_bytes) {
  constexpr std::int64_t kSmallestCache = std::int64_t{2} << 20;
  const std::int64_t half = (cache_bytes > kSmallestCache ? cache_bytes : kSmallestCache) / 2;
  const std::int64_t things = half / (bytes > 1 ? bytes : 1);
  return things > 1 ? things : 1;
}

// (sequence, head) pairs whose keys and values fill half of the L2 cache. `group` heads share keys, and count
// once. Precondition: pairs is at least 1.
constexpr int forward_heads_a_slice(std::int64_t bytes_of_keys, std::int64_t group,
                                    std::int64_t pairs, std::int64_t cache_bytes) {
  constexpr std::int64_t kMost = 2147483647;
  const std::int64_t most = pairs < kMost ? pairs : kMost;
  const std::int64_t keys = things_in_half_the_cache(bytes_of_keys, cache_bytes);
  return static_cast<int>(keys > most / group ? most : keys * group);
}

}  // namespace attune
