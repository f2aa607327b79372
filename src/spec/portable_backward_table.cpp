#include "spec/portable_rows.h"
#include "spec/portable_table.h"

namespace attune {

namespace {

using kernel::Element;
using kernel::PortableSpec;

using Tiles = std::vector<PortableTile>;

// {queries, keys, warps, stages, blocks}. What serves the devices with 99 KiB a block.
constexpr PortableTile kSmall = {32, 32, 4, 1, 1};
constexpr PortableTile kMiddle = {64, 64, 8, 1, 1};
constexpr PortableTile kLarge = {64, 128, 8, 2, 1};

// 64 KiB of shared memory.
Tiles turing_tiles(const PortableSpec& spec) {
  if (!on_tensor_cores(spec)) return spec.head_dim > 64 ? Tiles{} : Tiles{kSmall};
  if (spec.head_dim <= 64) return {kMiddle};  // no bound too
  return spec.head_dim > 128 ? Tiles{} : Tiles{kSmall};
}

// f32 by split tf32: rows are twice as long. Columns go to warps by powers of two: 96 are not.
Tiles split_tiles(const PortableSpec& spec) {
  if (spec.head_dim <= 64) return {kMiddle};
  if (spec.head_dim != 128) return {};
  return {{32, 64, 8, 1, 1}, kSmall};
}

Tiles half_tiles(const PortableSpec& spec) {
  if (spec.head_dim > 128) {
    // dK and dV leave too few registers for more; without a bound there is a row for any device.
    if (spec.general && spec.head_dim > 192) return {};
    if (is_featured(spec)) return {{64, 32, 8, 1, 1}};
    return {kMiddle, kSmall};
  }
  if (is_featured(spec)) return {kMiddle};
  if (spec.head_dim > 64) return {kLarge, kMiddle};
  return {kLarge};
}

Tiles tiles_of(const PortableSpec& spec) {
  if (spec.arch < 80) return turing_tiles(spec);
  return spec.element == Element::f32 ? split_tiles(spec) : half_tiles(spec);
}

}  // namespace

std::vector<PortableSpec> portable_backward_rows(DType dtype) {
  return portable_rows(dtype, tiles_of);
}

}  // namespace attune
