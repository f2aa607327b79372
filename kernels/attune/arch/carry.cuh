// A sum's carry as a bit of another number: two instructions, where a comparison and a selection take three.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

// bits = 2 bits + (whether x + y does not fit into 32 bits).
__device__ __forceinline__ void append_carry(u32& bits, u32 x, u32 y) {
  asm("{\n\t.reg .u32 sum;\n\tadd.cc.u32 sum, %1, %2;\n\taddc.u32 %0, %0, %0;\n\t}"
      : "+r"(bits)
      : "r"(x), "r"(y));
}

}  // namespace attune::kernel
