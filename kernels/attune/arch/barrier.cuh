// Barriers by number among some warps of a block (PTX ISA, "bar"); __syncthreads() is number 0.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

__device__ __forceinline__ void barrier_sync(int number, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

__device__ __forceinline__ void barrier_arrive(int number, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// As barrier_sync(); whether x holds for any of the threads.
__device__ __forceinline__ bool barrier_or(int number, int threads, bool x) {
  u32 y;
  asm volatile(
      "{\n .reg .pred p, q;\n setp.ne.u32 p, %3, 0;\n bar.red.or.pred q, %1, %2, p;\n"
      " selp.u32 %0, 1, 0, q;\n}"
      : "=r"(y)
      : "r"(number), "r"(threads), "r"(static_cast<u32>(x))
      : "memory");
  return y != 0;
}

// Kernels that follow in the stream and are launched so may begin once all blocks of this one have come here, or
// ended (PTX ISA, griddepcontrol); they wait themselves until this one is through.
__device__ __forceinline__ void let_followers_begin() {
  asm volatile("griddepcontrol.launch_dependents;");
}
// Until the kernels before this one are through, and what they wrote can be read. Where this one was launched in the
// ordinary way, they are.
__device__ __forceinline__ void await_predecessors() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Does nothing, but the compiler keeps the branch that leads to it.
__device__ __forceinline__ void hold() { asm volatile("nanosleep.u32 0;" ::: "memory"); }

// The compiler cannot see through x: what follows from it is computed where it is needed.
__device__ __forceinline__ int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

}  // namespace attune::kernel
