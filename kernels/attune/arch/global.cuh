// Global memory by whole vectors, whatever the compiler knows of a pointer's alignment.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

// 16 bytes; `there` is a predicate, not a branch.
__device__ __forceinline__ void store_global(void* to, const u32 (&r)[4], bool there) {
  asm volatile(
      "{\n .reg .pred p;\n setp.ne.b32 p, %5, 0;\n @p st.global.v4.b32 [%0], {%1, %2, %3, "
      "%4};\n}" ::"l"(__cvta_generic_to_global(to)),
      "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]), "r"(static_cast<int>(there))
      : "memory");
}

__device__ __forceinline__ void store_global(void* to, const u32 (&r)[2], bool there) {
  asm volatile(
      "{\n .reg .pred p;\n setp.ne.b32 p, %3, 0;\n @p st.global.v2.b32 [%0], {%1, %2};\n}" ::"l"(
          __cvta_generic_to_global(to)),
      "r"(r[0]), "r"(r[1]), "r"(static_cast<int>(there))
      : "memory");
}

__device__ __forceinline__ void store_global(void* to, float a, float b, bool there) {
  asm volatile(
      "{\n .reg .pred p;\n setp.ne.b32 p, %3, 0;\n @p st.global.v2.f32 [%0], {%1, %2};\n}" ::"l"(
          __cvta_generic_to_global(to)),
      "f"(a), "f"(b), "r"(static_cast<int>(there))
      : "memory");
}

// Read-only data. Not volatile: the compiler may move and drop these loads.
__device__ __forceinline__ void load_global(u32 (&r)[4], const void* from) {
  asm("ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "l"(__cvta_generic_to_global(from)));
}

__device__ __forceinline__ void load_global(u32 (&r)[2], const void* from) {
  asm("ld.global.nc.v2.b32 {%0, %1}, [%2];"
      : "=r"(r[0]), "=r"(r[1])
      : "l"(__cvta_generic_to_global(from)));
}

__device__ __forceinline__ void load_global(u32 (&r)[1], const void* from) {
  asm("ld.global.nc.b32 %0, [%1];" : "=r"(r[0]) : "l"(__cvta_generic_to_global(from)));
}

// Adds to memory that other blocks add to.
__device__ __forceinline__ void add_global(float* to, const float (&x)[4]) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(
                   __cvta_generic_to_global(to)),
               "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3])
               : "memory");
#else
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(__cvta_generic_to_global(to + i)),
                 "f"(x[i])
                 : "memory");
  }
#endif
}

// Blocks of threads take turns by a counter in global memory: one thread of a block draws a ticket, waits
// for the turn of that number, and passes it on. A block may wait only for tickets drawn before its own:
// those blocks run already.

// How many tickets were drawn before.
__device__ __forceinline__ u32 next_ticket(u32* counter) {
  u32 ticket;
  asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;"
               : "=r"(ticket)
               : "l"(__cvta_generic_to_global(counter))
               : "memory");
  return ticket;
}

// Until the counter is `value`. After it and a __syncthreads(), all threads of the block see what was
// written before the pass_turn() that made it so.
__device__ __forceinline__ void wait_for_turn(const u32* counter, u32 value) {
  u32 now;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                 : "=r"(now)
                 : "l"(__cvta_generic_to_global(counter))
                 : "memory");
  } while (now != value);
}

// What the block's threads wrote or added before a __syncthreads() comes before it.
__device__ __forceinline__ void pass_turn(u32* counter, u32 value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(counter)),
               "r"(value)
               : "memory");
}

}  // namespace attune::kernel
