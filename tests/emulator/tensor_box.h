// What the emulated copy engine knows of a tensor, in place of the driver's 128 opaque bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/emulator/block.h"

namespace attune::emulator {

// Dimensions from the innermost on: columns, heads, rows, sequences.
struct MappedTensor {
  static constexpr std::uint64_t kMagic = 0x61747475'6e65206dULL;
  std::uint64_t magic;
  const unsigned char* data;
  std::uint64_t sizes[4];
  std::int64_t strides[3];  // bytes, of all but columns
  std::uint32_t box_columns, box_heads, box_rows;
  std::uint32_t element_bytes;

  static const MappedTensor& of(const void* map) {
    const auto& tensor = *static_cast<const MappedTensor*>(map);
    if (tensor.magic != kMagic) fail("gives the copy engine what is no tensor's description");
    return tensor;
  }

  // As the box arrives: the heads of a row, then those of the next.
  [[nodiscard]] int rows() const { return static_cast<int>(box_heads * box_rows); }
  // A chunk of 16 bytes of a box at `at`, by its row and number; zeros outside of the tensor.
  void read(unsigned char (&to)[16], const int (&at)[4], int row, int chunk) const {
    std::memset(to, 0, 16);
    const std::int64_t size = element_bytes, count = 16 / size, column = chunk * count;
    const int heads = static_cast<int>(box_heads);
    const std::int64_t place[4] = {at[0] + column, at[1] + row % heads, at[2] + row / heads, at[3]};
    for (int i = 1; i < 4; ++i) {
      if (place[i] < 0 || place[i] >= static_cast<std::int64_t>(sizes[i])) return;
    }
    const unsigned char* from =
        data + place[1] * strides[0] + place[2] * strides[1] + place[3] * strides[2];
    for (std::int64_t e = 0; e < count; ++e) {
      if (place[0] + e < static_cast<std::int64_t>(sizes[0])) {
        std::memcpy(to + size * e, from + size * (place[0] + e), element_bytes);
      }
    }
  }
};
static_assert(sizeof(MappedTensor) <= 128);

}  // namespace attune::emulator
