// As kernels/attune/arch/registers.cuh, on the host, where nobody counts them.
#pragma once

namespace attune::kernel {

template <int kRegisters>
void give_registers() {}
template <int kRegisters>
void take_registers() {}

}  // namespace attune::kernel
