// Barriers in shared memory that count arrivals and bytes (PTX ISA, "mbarrier"). sm_90 and later.
#pragma once

#include <attune/arch/shared.cuh>

namespace attune::kernel {

__device__ __forceinline__ void mbarrier_init(u32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// What one thread initialized becomes visible to the copy engine and, after a block's barrier, to all.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// At a barrier of another block of the cluster, by its address there (cluster_address()).
__device__ __forceinline__ void mbarrier_arrive_there(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Likewise, and what this thread wrote before is seen behind mbarrier_wait_cluster(): waits until all of it
// is visible to the whole GPU, some hundreds of cycles.
__device__ __forceinline__ void mbarrier_release_there(u32 barrier) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier)
               : "memory");
}

// Arrives, and lets the phase wait for so many bytes of asynchronous copies.
__device__ __forceinline__ void mbarrier_expect(u32 barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Whether the phase of this parity is over.
__device__ __forceinline__ bool mbarrier_test(u32 barrier, u32 parity) {
  u32 over;
  asm volatile(
      "{\n .reg .pred done;\n"
      " mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      " selp.u32 %0, 1, 0, done;\n}"
      : "=r"(over)
      : "r"(barrier), "r"(parity)
      : "memory");
  return over != 0;
}

// Until it is. Whoever waits sleeps for at most so many ns at a time: asked again and again, waiting warps
// would take instructions' turns and their place in the caches.
__device__ __forceinline__ void mbarrier_wait(u32 barrier, u32 parity) {
  constexpr u32 kMostSleep = 10000000;
  asm volatile(
      "{\n .reg .pred done;\n"
      "again:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1, %2;\n"
      " @!done bra again;\n}" ::"r"(barrier),
      "r"(parity), "r"(kMostSleep)
      : "memory");
}

// For arrivals from other blocks of the cluster, and what they wrote.
__device__ __forceinline__ void mbarrier_wait_cluster(u32 barrier, u32 parity) {
  asm volatile(
      "{\n .reg .pred done;\n"
      "again:\n mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      " @!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

}  // namespace attune::kernel
