// Copies of boxes of a tensor between global and shared memory by the copy engine (PTX ISA,
// "cp.async.bulk.tensor"). sm_90 and later.
#pragma once

#include <attune/arch/mbarrier.cuh>

namespace attune::kernel {

__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<u64>(&map)) : "memory");
}

// The box at (column, head, row, sequence), whose bytes arrive at `barrier`.
__device__ __forceinline__ void load_box(u32 to, const TensorMap& map, u32 barrier, int column,
                                         int h, int row, int b) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
      "l"(reinterpret_cast<u64>(&map)), "r"(barrier), "r"(column), "r"(h), "r"(row), "r"(b)
      : "memory");
}

// The same to the same place of two blocks of threads, a cluster, at whose barriers the bytes arrive.
__device__ __forceinline__ void load_box_twice(u32 to, const TensorMap& map, u32 barrier,
                                               int column, int h, int row, int b) {
  constexpr unsigned short kBoth = 3;
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(to),
      "l"(reinterpret_cast<u64>(&map)), "r"(barrier), "r"(column), "r"(h), "r"(row), "r"(b),
      "h"(kBoth)
      : "memory");
}

// What threads wrote to shared memory becomes visible to the copy engine and to wgmma, after a barrier to
// those of other threads.
__device__ __forceinline__ void fence_shared_for_engines() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

}  // namespace attune::kernel
