// Blocks of threads that run together and read each other's shared memory (PTX ISA, "cluster"). sm_90 and
// later. Without clusters in its launch, a block is the only one of its own.
#pragma once

#include <attune/arch/shared.cuh>

namespace attune::kernel {

// Blocks of this cluster, along x, and the number of this one.
__device__ __forceinline__ int cluster_blocks() {
  int blocks;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
  return blocks;
}
__device__ __forceinline__ int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// By every thread of every block. What was written before it is seen behind it.
__device__ __forceinline__ void cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;" ::
          : "memory");
}

// Where an address of this block's shared memory lies in that of another.
__device__ __forceinline__ u32 cluster_address(u32 address, int rank) {
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}

// A byte there, for who waits for an arrival (mbarrier_release_there) of this thread.
__device__ __forceinline__ void store_cluster(u32 address, unsigned char x) {
  asm volatile("st.shared::cluster.b8 [%0], %1;" ::"r"(address), "r"(static_cast<u32>(x))
               : "memory");
}

// From such an address. Only between two barriers of the cluster: then the other block runs.
__device__ __forceinline__ void load_cluster(u32 (&r)[2], u32 address) {
  asm volatile("ld.shared::cluster.v2.b32 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}

// `there` is a predicate, not a branch: zeros without it.
__device__ __forceinline__ void load_cluster(u32 (&r)[4], u32 address, bool there) {
  asm volatile(
      "{\n .reg .pred p;\n setp.ne.b32 p, %5, 0;\n"
      " mov.b32 %0, 0;\n mov.b32 %1, 0;\n mov.b32 %2, 0;\n mov.b32 %3, 0;\n"
      " @p ld.shared::cluster.v4.b32 {%0, %1, %2, %3}, [%4];\n}"
      : "=&r"(r[0]), "=&r"(r[1]), "=&r"(r[2]), "=&r"(r[3])
      : "r"(address), "r"(static_cast<int>(there))
      : "memory");
}

}  // namespace attune::kernel
