// A GPU's block of threads on the host: what the device headers find in place of CUDA's own words, so
// that a C++ compiler takes them. Each thread is a fiber; warps run in a random order, and each runs
// until it has to wait. Asynchronous copies arrive only when they are waited for.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__  // the standard library's own use of it becomes __attribute__(())
#define __shared__
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __CUDA_ARCH__ 900

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace attune::kernel {
extern unsigned char shared[];  // a block's, of which each kernel declares it takes some
}

namespace attune::emulator {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
const Index& thread_index();
const Index& block_index();
const Index& block_size();
const Index& grid_size();

// Runs body() as every thread of every block, one block after another. Shared memory is full of NaN
// before each. Throws std::runtime_error when the threads of a block wait for each other for ever, or
// reach outside of shared memory.
void launch(unsigned blocks, unsigned threads, std::size_t shared_bytes, unsigned seed,
            const std::function<void()>& body);

// All 32 lanes of the calling warp hand over something; the last to come calls op(slots).
void meet_warp(void* mine, const std::function<void(void**)>& op);
// As PTX's bar.sync, bar.arrive and bar.red.or.
bool barrier(int number, int threads, bool wait, bool x);

void copy_later(std::uint32_t to, const void* from);  // 16 bytes, or zeros when null
void commit_copies();
void wait_for_copies(int pending);

// Shared memory by its 32-bit addresses; checked.
unsigned char* at(std::uint32_t address, std::size_t bytes);

template <typename T>
T exchange(T x, const std::function<unsigned(unsigned)>& source) {
  struct Slot {
    T in, out;
    const std::function<unsigned(unsigned)>* source;
  } slot{x, x, &source};
  meet_warp(&slot, [](void** slots) {
    for (unsigned lane = 0; lane < 32; ++lane) {
      auto* mine = static_cast<Slot*>(slots[lane]);
      mine->out = static_cast<Slot*>(slots[(*mine->source)(lane) % 32])->in;
    }
  });
  return slot.out;
}

unsigned ballot(bool x);

}  // namespace attune::emulator

#define threadIdx (::attune::emulator::thread_index())
#define blockIdx (::attune::emulator::block_index())
#define blockDim (::attune::emulator::block_size())
#define gridDim (::attune::emulator::grid_size())

inline void __syncthreads() {
  (void)attune::emulator::barrier(0, static_cast<int>(blockDim.x), true, false);
}
inline bool __syncthreads_or(bool x) {
  return attune::emulator::barrier(0, static_cast<int>(blockDim.x), true, x);
}
inline void __syncwarp() { (void)attune::emulator::ballot(false); }
inline unsigned __ballot_sync(unsigned, bool x) { return attune::emulator::ballot(x); }
inline bool __any_sync(unsigned, bool x) { return attune::emulator::ballot(x) != 0; }
inline bool __all_sync(unsigned, bool x) { return attune::emulator::ballot(!x) == 0; }
template <typename T>
T __shfl_xor_sync(unsigned, T x, unsigned mask) {
  return attune::emulator::exchange<T>(x, [=](unsigned lane) { return lane ^ mask; });
}
template <typename T>
T __shfl_sync(unsigned, T x, unsigned source, unsigned width = 32) {
  return attune::emulator::exchange<T>(
      x, [=](unsigned lane) { return lane / width * width + source % width; });
}
inline std::size_t __cvta_generic_to_shared(const void* p) {
  return static_cast<std::size_t>(static_cast<const unsigned char*>(p) - attune::kernel::shared);
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
