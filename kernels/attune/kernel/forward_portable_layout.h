// Shared memory of the portable forward kernel, counted by host and device alike.
#pragma once

#include <attune/spec/portable.h>

namespace attune::kernel {

constexpr int forward_portable_shared_bytes(PortableForward spec) {
  const int columns = spec.head_dim == 0 ? 64 : spec.head_dim;
  return (spec.queries + 2 * spec.stages * spec.keys) * columns * bytes_of(spec.element);
}

}  // namespace attune::kernel
