#include "spec/gpu_row.h"

#include <attune/kernel/backward_portable_layout.h>
#include <attune/kernel/forward_hopper_layout.h>
#include <attune/kernel/forward_portable_layout.h>

namespace attune {

namespace {

template <typename Row>
GpuRow common(const Row& row, int value_dim, bool aligned, int blocks, int shared_bytes) {
  return {row.head_dim, value_dim,   aligned,  row.bias,   row.dropout,
          row.general,  row.queries, row.keys, row.stages, kernel::threads_of(row),
          blocks,       shared_bytes};
}

}  // namespace

GpuRow gpu_row_of(const KernelSpec& spec) {
  if (spec.family == Family::hopper) {
    const kernel::HopperSpec& row = spec.hopper;
    return common(row, row.value_dim, true, kernel::blocks_of(row),
                  kernel::forward_hopper_shared_bytes(row));
  }
  const kernel::PortableSpec& row = spec.portable;
  return common(row, row.head_dim, row.aligned, row.blocks,
                spec.kind == Kind::forward ? kernel::forward_portable_shared_bytes(row)
                                           : kernel::backward_portable_shared_bytes(row));
}

}  // namespace attune
