#include "spec/portable_rows.h"
#include "spec/portable_table.h"

namespace attune {

namespace {

using kernel::Element;
using kernel::PortableSpec;

using Tiles = std::vector<PortableTile>;

// {queries, keys, warps, stages, blocks}. The last of a list serves devices with 99 KiB a block where one
// does; those of docs/kernels/backward_portable.md were measured.
constexpr PortableTile kSmall = {32, 32, 4, 1, 1};
constexpr PortableTile kMiddle = {64, 64, 8, 1, 1};
// The next queries are on their way.
constexpr PortableTile kMiddleAhead = {64, 64, 8, 2, 1};
constexpr PortableTile kNarrowAhead = {32, 64, 8, 2, 1};

// 64 KiB of shared memory.
Tiles turing_tiles(const PortableSpec& spec) {
  if (!on_tensor_cores(spec)) return spec.head_dim > 64 ? Tiles{} : Tiles{kSmall};
  if (spec.head_dim <= 64) return {kMiddle};  // no bound too
  return spec.head_dim > 128 ? Tiles{} : Tiles{kSmall};
}

// f32 by split tf32: rows are twice as long. Columns go to warps by powers of two: 96 are not.
Tiles split_tiles(const PortableSpec& spec) {
  if (spec.head_dim == 0) return {kMiddle};
  if (spec.head_dim <= 64) return {is_featured(spec) ? kMiddle : PortableTile{64, 64, 4, 1, 2}};
  if (spec.head_dim != 128) return {};
  if (spec.general) return {{32, 64, 8, 1, 1}, kSmall};
  return {kMiddle, kSmall};
}

// Where registers do not hold more of dK and dV, keys are few.
Tiles wide_half_tiles(const PortableSpec& spec) {
  if (spec.general) return spec.head_dim > 192 ? Tiles{} : Tiles{{64, 32, 8, 1, 1}};
  if (spec.dropout) return {{64, 32, 8, 1, 1}};
  if (spec.bias) return {kNarrowAhead, kSmall};
  return {kMiddleAhead, kNarrowAhead, kSmall};
}

Tiles half_tiles(const PortableSpec& spec) {
  if (spec.head_dim > 128) return wide_half_tiles(spec);
  if (spec.head_dim == 0) return {kMiddle};
  if (spec.general) {
    if (spec.head_dim <= 96) return {kMiddleAhead};
    return {kMiddleAhead, kNarrowAhead};
  }
  if (spec.head_dim > 64) {
    if (is_featured(spec)) return {{32, 64, 4, 2, 2}};
    return {{64, 128, 8, 2, 1}, {64, 64, 4, 1, 2}};
  }
  return {is_featured(spec) ? PortableTile{64, 64, 4, 2, 2} : PortableTile{32, 128, 4, 2, 2}};
}

// As in portable_forward_table.cpp.
Tiles blackwell_tiles(const PortableSpec& spec) {
  if (spec.element == Element::f32 || !spec.aligned || is_featured(spec)) return {};
  if (spec.head_dim == 128) return {{64, 128, 8, 2, 1}, {32, 64, 4, 2, 2}};
  if (spec.head_dim == 256) return {kNarrowAhead, kSmall};
  return {};
}

Tiles tiles_of(const PortableSpec& spec) {
  if (spec.arch >= 100) return blackwell_tiles(spec);
  if (spec.arch < 80) return turing_tiles(spec);
  return spec.element == Element::f32 ? split_tiles(spec) : half_tiles(spec);
}

}  // namespace

std::vector<PortableSpec> portable_backward_rows(DType dtype) {
  return portable_rows(dtype, tiles_of);
}

}  // namespace attune
