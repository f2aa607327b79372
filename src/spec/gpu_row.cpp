#include "spec/gpu_row.h"

#include <attune/kernel/backward_portable_layout.h>
#include <attune/kernel/forward_hopper_layout.h>
#include <attune/kernel/forward_portable_layout.h>

namespace attune {

GpuRow gpu_row_of(const KernelSpec& spec) {
  if (spec.family == Family::hopper) {
    const kernel::HopperSpec& row = spec.hopper;
    return {row.head_dim,
            row.value_dim,
            true,
            row.bias,
            row.dropout,
            row.general,
            row.queries,
            row.keys,
            row.stages,
            kernel::threads_of(row),
            1,
            kernel::forward_hopper_shared_bytes(row)};
  }
  const kernel::PortableSpec& row = spec.portable;
  return {row.head_dim,
          row.head_dim,
          row.aligned,
          row.bias,
          row.dropout,
          row.general,
          row.queries,
          row.keys,
          row.stages,
          kernel::threads_of(row),
          row.blocks,
          spec.kind == Kind::forward ? kernel::forward_portable_shared_bytes(row)
                                     : kernel::backward_portable_shared_bytes(row)};
}

}  // namespace attune
