// CUDA's words for a C++ compiler, with attune/arch/ beside this file in place of
// kernels/attune/arch/. `kernel` and other words become macros.
//
// The code of an architecture differs from that of another, so its names must: each has a namespace.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/emulator/block.h"

#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#if __CUDA_ARCH__ < 800
#define kernel kernel_sm75
#else
#define kernel kernel_sm80
#endif

#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__  // the standard library's own use of it becomes __attribute__(())
#define __shared__
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __launch_bounds__(...)

#include <attune/params.h>  // by its new name

namespace attune::kernel {
extern unsigned char shared[] __asm__("attune_emulator_shared");
}

namespace attune::emulator {

inline void expect_all_lanes(unsigned mask) {
  if (mask != ~0u) fail("leaves lanes out of what its warp does");
}

// What lane `source(lane)` has.
template <typename T, typename Source>
T exchange(T x, Source source) {
  struct Slot {
    T in, out;
    Source source;
  } slot{x, x, source};
  meet_warp(&slot, [](void* const* lanes) {
    for (unsigned lane = 0; lane < 32; ++lane) {
      auto* const mine = static_cast<Slot*>(lanes[lane]);
      mine->out = static_cast<const Slot*>(lanes[mine->source(lane) % 32])->in;
    }
  });
  return slot.out;
}

inline unsigned ballot(unsigned mask, bool x) {
  expect_all_lanes(mask);
  struct Slot {
    bool in;
    unsigned out;
  } slot{x, 0};
  meet_warp(&slot, [](void* const* lanes) {
    unsigned all = 0;
    for (unsigned i = 0; i < 32; ++i) {
      all |= static_cast<unsigned>(static_cast<const Slot*>(lanes[i])->in) << i;
    }
    for (unsigned i = 0; i < 32; ++i) static_cast<Slot*>(lanes[i])->out = all;
  });
  return slot.out;
}

inline int barrier_of_block(bool x) {
  return barrier(0, static_cast<int>(block_size().x), true, x);
}

}  // namespace attune::emulator

#define threadIdx (::attune::emulator::thread_index())
#define blockIdx (::attune::emulator::block_index())
#define blockDim (::attune::emulator::block_size())
#define gridDim (::attune::emulator::grid_size())

struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline void __syncthreads() { (void)attune::emulator::barrier_of_block(false); }
inline int __syncthreads_count(int x) { return attune::emulator::barrier_of_block(x != 0); }
inline int __syncthreads_or(int x) { return attune::emulator::barrier_of_block(x != 0) != 0; }
inline int __syncthreads_and(int x) { return attune::emulator::barrier_of_block(x == 0) == 0; }
inline void __syncwarp(unsigned mask = ~0u) { (void)attune::emulator::ballot(mask, false); }
inline unsigned __ballot_sync(unsigned mask, int x) {
  return attune::emulator::ballot(mask, x != 0);
}
inline int __any_sync(unsigned mask, int x) { return __ballot_sync(mask, x) != 0; }
inline int __all_sync(unsigned mask, int x) { return __ballot_sync(mask, x) == ~0u; }

template <typename T>
T __shfl_sync(unsigned mask, T x, unsigned source, unsigned width = 32) {
  attune::emulator::expect_all_lanes(mask);
  return attune::emulator::exchange(
      x, [=](unsigned lane) { return lane / width * width + source % width; });
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T x, unsigned with, unsigned width = 32) {
  attune::emulator::expect_all_lanes(mask);
  return attune::emulator::exchange(x, [=](unsigned lane) {
    const unsigned source = lane ^ with;
    return source / width > lane / width ? lane : source;
  });
}
template <typename T>
T __shfl_down_sync(unsigned mask, T x, unsigned by, unsigned width = 32) {
  attune::emulator::expect_all_lanes(mask);
  return attune::emulator::exchange(
      x, [=](unsigned lane) { return lane % width + by < width ? lane + by : lane; });
}
template <typename T>
T __shfl_up_sync(unsigned mask, T x, unsigned by, unsigned width = 32) {
  attune::emulator::expect_all_lanes(mask);
  return attune::emulator::exchange(
      x, [=](unsigned lane) { return lane % width >= by ? lane - by : lane; });
}

// Blocks run one after another and threads of a block never at the same time: every access is atomic
// and seen by all.
template <typename T>
T atomicAdd(T* to, T x) {
  const T before = *to;
  *to = before + x;
  return before;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
template <typename T>
T __ldg(const T* from) {
  return *from;
}

inline std::size_t __cvta_generic_to_shared(const void* p) {
  return attune::emulator::address_of(p);
}
inline std::size_t __cvta_generic_to_global(const void* p) {
  return reinterpret_cast<std::size_t>(p);
}
// Bytes 0 to 3 are a's, 4 to 7 b's; each digit of `selector` names the one that goes to its place.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = a | static_cast<std::uint64_t>(b) << 32;
  unsigned x = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned digit = selector >> 4 * i & 15u;
    if (digit > 7) attune::emulator::fail("permutes by a sign");
    x |= static_cast<unsigned>(bytes >> 8 * digit & 0xffu) << 8 * i;
  }
  return x;
}
inline float __uint_as_float(unsigned x) {
  float y;
  std::memcpy(&y, &x, 4);
  return y;
}
inline unsigned __float_as_uint(float x) {
  unsigned y;
  std::memcpy(&y, &x, 4);
  return y;
}
