// As kernels/attune/arch/cluster.cuh, on the host.
#pragma once

#include <attune/arch/shared.cuh>

#include "tests/emulator/device.h"

namespace attune::kernel {

inline int cluster_blocks() { return static_cast<int>(emulator::cluster_blocks()); }
inline int cluster_rank() { return static_cast<int>(emulator::cluster_rank()); }
inline void cluster_sync() { emulator::cluster_barrier(); }

// No block has that much shared memory.
constexpr u32 kClusterStep = 1u << 24;
inline u32 cluster_address(u32 address, int rank) {
  if (rank < 0 || rank >= cluster_blocks()) emulator::fail("reaches for a block of no cluster");
  return (static_cast<u32>(rank) + 1) * kClusterStep + address;
}

namespace detail {

inline unsigned char* in_cluster(u32 address, std::size_t bytes) {
  if (address < kClusterStep) emulator::fail("takes an address of its own for another block's");
  return emulator::at_block(address / kClusterStep - 1, address % kClusterStep, bytes);
}
inline void read_cluster(u32* r, u32 address, std::size_t bytes) {
  std::memcpy(r, in_cluster(address, bytes), bytes);
}

}  // namespace detail

inline void store_cluster(u32 address, unsigned char x) { *detail::in_cluster(address, 1) = x; }
inline void load_cluster(u32 (&r)[2], u32 address) { detail::read_cluster(r, address, 8); }
inline void load_cluster(u32 (&r)[4], u32 address, bool there) {
  std::memset(r, 0, 16);
  if (there) detail::read_cluster(r, address, 16);
}

}  // namespace attune::kernel
