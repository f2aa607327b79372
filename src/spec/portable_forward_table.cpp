#include "spec/portable_rows.h"
#include "spec/portable_table.h"

namespace attune {

namespace {

using kernel::Element;
using kernel::PortableSpec;

// Without tensor cores a thread's work is unrolled key by key: short tiles keep the code short.
PortableTile simt_tile(const PortableSpec& spec) {
  const int row = (spec.head_dim == 0 ? 64 : spec.head_dim) * bytes_of(spec.element);
  return row > 512 ? PortableTile{16, 16, 1, 1, 1} : PortableTile{32, 16, 2, 1, 1};
}

// f32 by split tf32. All fit the 99 KiB that the smallest devices of the range have.
PortableTile split_tile(const PortableSpec& spec, bool featured) {
  switch (spec.head_dim) {
    case 32:
    case 64:
      return {64, featured ? 32 : 48, 4, 2, 2};
    case 96:
    case 128:
      return featured ? PortableTile{64, 16, 4, 2, 2} : PortableTile{64, 32, 4, 2, 2};
    default:
      return {64, 32, 4, 1, 2};
  }
}

PortableTile half_tile(const PortableSpec& spec, bool featured) {
  switch (spec.head_dim) {
    case 32:
    case 64:
      if (!featured) return {128, spec.head_dim == 64 ? 80 : 64, 4, 2, 2};
      if (spec.general) return {64, 32, 4, 2, 3};
      return spec.bias ? PortableTile{64, 128, 4, 2, 2} : PortableTile{64, 64, 4, 2, 3};
    case 96:
      if (!featured) return {128, 64, 4, 2, 2};
      return {64, spec.general ? 32 : 64, 4, 2, 2};
    case 128:
      if (!featured) return {128, 48, 4, 2, 2};
      if (spec.general) return {64, 32, 4, 2, 2};
      return {64, 64, 4, 2, 2};
    case 192:
    case 256:
      return {64, 32, 4, 2, featured ? 1 : 2};
    default:
      return {64, 64, 4, 1, 2};
  }
}

// Warps that share rows take all the shared memory of the large devices; the row after this one serves
// the others.
constexpr PortableTile kPairedTile = {128, 64, 8, 2, 1, true};

bool gains_from_pairs(const PortableSpec& spec) {
  return spec.element != Element::f32 && spec.arch >= 80 && spec.head_dim > 128 && spec.aligned &&
         !is_featured(spec);
}

// Measured: docs/kernels/forward_portable.md.
PortableTile choose_tile(const PortableSpec& spec) {
  if (!on_tensor_cores(spec)) return simt_tile(spec);
  if (spec.arch < 80) {  // 64 KiB
    return {64, spec.head_dim > 128 ? 16 : 32, 4, 1, 1};
  }
  const bool featured = is_featured(spec);
  return spec.element == Element::f32 ? split_tile(spec, featured) : half_tile(spec, featured);
}

// From sm_100 on NVRTC 13 makes other code of the same source, which takes more registers than there are for
// some tiles: smaller ones in their place. None of these has been measured.
std::vector<PortableTile> blackwell_tiles(const PortableSpec& spec) {
  if (spec.element == Element::f32 || !spec.aligned || spec.general) return {};
  if (spec.head_dim == 64) {
    if (!is_featured(spec)) return {{128, 64, 4, 2, 2}};
    return {spec.bias ? PortableTile{64, 96, 4, 2, 2} : PortableTile{64, 64, 4, 2, 2}};
  }
  if (spec.head_dim != 128 || spec.dropout) return {};
  return {{64, spec.bias ? 48 : 64, 4, 2, 2}};
}

std::vector<PortableTile> tiles_of(const PortableSpec& spec) {
  if (spec.arch >= 100) return blackwell_tiles(spec);
  // O, S and the splits of f32 together pass 255 registers there.
  if (spec.element == Element::f32 && spec.arch >= 80 && spec.head_dim > 128) return {};
  if (gains_from_pairs(spec)) return {kPairedTile, choose_tile(spec)};
  return {choose_tile(spec)};
}

}  // namespace

std::vector<PortableSpec> portable_forward_rows(DType dtype) {
  return portable_rows(dtype, tiles_of);
}

}  // namespace attune
