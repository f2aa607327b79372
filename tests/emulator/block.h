// Blocks of threads on the host, one after another but for those of a cluster. Each thread is a fiber; warps take turns at random,
// and so do the lanes of a warp. Nothing here knows of attention.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace attune::emulator {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Launch {
  Index grid{1, 1, 1};
  unsigned threads = 32;  // a multiple of 32
  std::size_t shared_bytes = 0;
  unsigned seed = 1;     // decides every order
  unsigned cluster = 1;  // neighbours along x that run together
};

inline constexpr std::size_t kMostSharedBytes = 227 * 1024;

// Runs body() as every thread of every block, clusters in a random order. Shared memory is full of NaN
// before each. Throws std::runtime_error when threads wait for ever, when lanes meet at different
// instructions, and when something lies outside of shared memory or is less aligned than it must be.
void launch(const Launch& how, const std::function<void()>& body);

// The rest is for threads alone.
const Index& thread_index();
const Index& block_index();
const Index& block_size();
const Index& grid_size();

// All 32 lanes of the warp hand over something; the last to come calls op(what all handed over).
using WarpOp = void (*)(void* const* lanes);
void meet_warp(void* mine, WarpOp op);

// As PTX's bar.sync, bar.arrive (`wait` false) and bar.red; how many threads came with x.
int barrier(int number, int threads, bool wait, bool x);

// 16 bytes, or zeros when null. They arrive at once or when they are waited for, as it happens.
void copy_later(std::uint32_t to, const void* from);
void commit_copies();
void wait_for_copies(int pending);

// What an engine beside the threads does: now, or as late as threads wait for it.
void later(std::function<void()> action);
// Until the word in shared memory has changed.
void wait_for_change(const unsigned& word);
// Coin flips of the launch's seed: true once in `times`.
bool chance(unsigned times);
// What is kept for this thread's warp until the block ends; null at first.
std::shared_ptr<void>& state_of_warp();
std::shared_ptr<void>& state_of_warp(unsigned warp);

// Shared memory by its 32-bit addresses; checked.
unsigned char* at(std::uint32_t address, std::size_t bytes);
std::uint32_t address_of(const void* shared);
// `p` itself; checked.
const void* aligned(const void* p, std::size_t bytes);
inline void* aligned(void* p, std::size_t bytes) {
  (void)aligned(static_cast<const void*>(p), bytes);
  return p;
}

// Of the cluster: its blocks, and which of them this is.
unsigned cluster_blocks();
unsigned cluster_rank();
// Of all threads of the cluster.
void cluster_barrier();
// As at(), of a block of the cluster, which must not have ended.
unsigned char* at_block(unsigned rank, std::uint32_t address, std::size_t bytes);

[[noreturn]] void fail(const char* what);

}  // namespace attune::emulator
