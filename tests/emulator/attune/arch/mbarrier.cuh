// As kernels/attune/arch/mbarrier.cuh, on the host.
#pragma once

#include <attune/arch/shared.cuh>

#include "tests/emulator/device.h"

namespace attune::kernel {

namespace detail {

// The eight bytes of one.
struct Mbarrier {
  u32 expected : 6, pending : 6, bytes : 20;  // arrivals of a phase; still missing; bytes likewise
  u32 phase;
};
static_assert(sizeof(Mbarrier) == 8);

inline Mbarrier& mbarrier_at(u32 address) {
  return *reinterpret_cast<Mbarrier*>(emulator::at(address, 8));
}

inline void end_phase_if_complete(Mbarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes > 0) return;
  barrier.pending = barrier.expected;
  ++barrier.phase;
}

inline void arrive(Mbarrier& barrier) {
  if (barrier.pending == 0) emulator::fail("arrives where all have arrived");
  --barrier.pending;
  end_phase_if_complete(barrier);
}

// What a copy says when it has arrived.
inline void complete_bytes(u32 address, u32 bytes) {
  Mbarrier& barrier = mbarrier_at(address);
  if (bytes > barrier.bytes) emulator::fail("copies more than a barrier was told to expect");
  barrier.bytes -= bytes;
  end_phase_if_complete(barrier);
}

}  // namespace detail

inline void mbarrier_init(u32 barrier, int arrivals) {
  detail::mbarrier_at(barrier) = {static_cast<u32>(arrivals), static_cast<u32>(arrivals), 0, 0};
}
inline void mbarrier_init_fence() {}
inline void mbarrier_arrive(u32 barrier) { detail::arrive(detail::mbarrier_at(barrier)); }
inline void mbarrier_expect(u32 barrier, int bytes) {
  detail::Mbarrier& x = detail::mbarrier_at(barrier);
  x.bytes += static_cast<u32>(bytes);
  detail::arrive(x);
}
inline bool mbarrier_test(u32 barrier, u32 parity) {
  return (detail::mbarrier_at(barrier).phase & 1u) != parity;
}
inline void mbarrier_wait(u32 barrier, u32 parity) {
  detail::Mbarrier& x = detail::mbarrier_at(barrier);
  while ((x.phase & 1u) == parity) emulator::wait_for_change(x.phase);
}

}  // namespace attune::kernel
