// What the kernels of a cubin cost, read from the compiled cubin itself.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace attune {

// Of several kernels the worst of each: what one of them breaks is seen, and a cubin's facts are a few
// numbers however many there are, in bundles and in the disk cache too.
struct CubinFacts {
  std::uint32_t registers = 0;     // a thread
  std::uint32_t shared_bytes = 0;  // static; dynamic shared memory is asked for at launch
  std::uint32_t local_bytes =
      0;  // of a thread's frame; spilled registers live there and nowhere else
  std::uint32_t parameter_bytes = 0;  // of the one struct that each kernel takes; the same for all
  std::uint32_t max_threads = 0;      // a block, from __launch_bounds__, the least; 0: not said
  std::uint32_t code_bytes = 0;       // of all together
  friend bool operator==(const CubinFacts&, const CubinFacts&) = default;
};

// Reads the facts of the kernel `entry` and of those whose names continue it with an underscore. The bytes are hostile until read: whatever is truncated,
// overlapping or contradicts itself is refused, saying what.
[[nodiscard]] Expected<CubinFacts> read_facts(std::span<const std::byte> cubin,
                                              std::string_view entry);

}  // namespace attune
