// Registers that a block's warpgroups hand to each other (PTX ISA, "setmaxnreg"). sm_90a alone.
#pragma once

namespace attune::kernel {

// Of a thread, multiples of 8; every thread of the warpgroup calls it.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace attune::kernel
