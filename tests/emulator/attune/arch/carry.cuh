// As kernels/attune/arch/carry.cuh, on the host.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

inline void append_carry(u32& bits, u32 x, u32 y) { bits = 2 * bits + (x + y < x ? 1 : 0); }

}  // namespace attune::kernel
