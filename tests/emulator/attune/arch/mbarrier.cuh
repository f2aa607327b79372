// As kernels/attune/arch/mbarrier.cuh, on the host.
#pragma once

#include <attune/arch/cluster.cuh>
#include <attune/arch/shared.cuh>

#include "tests/emulator/device.h"

namespace attune::kernel {

namespace detail {

// The eight bytes of one.
struct Mbarrier {
  u32 expected : 6, pending : 6;  // arrivals of a phase; still missing
  int bytes : 20;  // still missing; below 0 where copies come before they are told of
  u32 phase;
};
static_assert(sizeof(Mbarrier) == 8);

inline Mbarrier& mbarrier_at(u32 address) {
  return *reinterpret_cast<Mbarrier*>(emulator::at(address, 8));
}

inline void end_phase_if_complete(Mbarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes > 0) return;
  if (barrier.bytes < 0) emulator::fail("copies more than a barrier was told to expect");
  barrier.pending = barrier.expected;
  ++barrier.phase;
}

inline void arrive(Mbarrier& barrier) {
  if (barrier.pending == 0) emulator::fail("arrives where all have arrived");
  --barrier.pending;
  end_phase_if_complete(barrier);
}

// What a copy says when it has arrived.
inline void complete_bytes(Mbarrier& barrier, int bytes) {
  barrier.bytes -= bytes;
  end_phase_if_complete(barrier);
}
inline void complete_bytes(u32 address, int bytes) { complete_bytes(mbarrier_at(address), bytes); }

}  // namespace detail

inline void mbarrier_init(u32 barrier, int arrivals) {
  detail::mbarrier_at(barrier) = {static_cast<u32>(arrivals), static_cast<u32>(arrivals), 0, 0};
}
inline void mbarrier_init_fence() {}
inline void mbarrier_arrive(u32 barrier) { detail::arrive(detail::mbarrier_at(barrier)); }
inline void mbarrier_arrive_there(u32 barrier) {
  detail::arrive(*reinterpret_cast<detail::Mbarrier*>(detail::in_cluster(barrier, 8)));
}
inline void mbarrier_release_there(u32 barrier) { mbarrier_arrive_there(barrier); }
inline void mbarrier_expect(u32 barrier, int bytes) {
  detail::Mbarrier& x = detail::mbarrier_at(barrier);
  x.bytes += bytes;
  detail::arrive(x);
}
inline bool mbarrier_test(u32 barrier, u32 parity) {
  return (detail::mbarrier_at(barrier).phase & 1u) != parity;
}
inline void mbarrier_wait(u32 barrier, u32 parity) {
  detail::Mbarrier& x = detail::mbarrier_at(barrier);
  while ((x.phase & 1u) == parity) emulator::wait_for_change(x.phase);
}

inline void mbarrier_wait_cluster(u32 barrier, u32 parity) { mbarrier_wait(barrier, parity); }

}  // namespace attune::kernel
