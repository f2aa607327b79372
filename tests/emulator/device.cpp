#include "device.h"

#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace attune::kernel {
alignas(128) unsigned char shared[256 * 1024];
}

namespace attune::emulator {
namespace {

constexpr std::size_t kStack = 256 * 1024;
constexpr int kBarriers = 16;

struct Copy {
  std::uint32_t to;
  const void* from;
};

struct Thread {
  Index index;
  ucontext_t context{};
  std::unique_ptr<char[]> stack;
  bool done = false;
  const unsigned* waits_for = nullptr;  // runs on once this is no longer `seen`
  unsigned seen = 0;
  std::vector<std::vector<Copy>> groups;
};

struct Warp {
  unsigned come = 0, generation = 0;
  void* slots[32] = {};
};

struct Barrier {
  int come = 0;
  unsigned generation = 0;
  bool any = false, result = false;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barriers[kBarriers];
  Thread* current = nullptr;
  ucontext_t scheduler{};
  const std::function<void()>* body = nullptr;
  std::string error;
  std::size_t shared_bytes = 0;
  Index index, size, grid;
};

Block* the_block = nullptr;

void switch_away() {
  Block& block = *the_block;
  swapcontext(&block.current->context, &block.scheduler);
}

void wait(const unsigned& generation, unsigned seen) {
  Thread& me = *the_block->current;
  me.waits_for = &generation;
  me.seen = seen;
  switch_away();
  me.waits_for = nullptr;
}

void thread_main() {
  Block& block = *the_block;
  try {
    (*block.body)();
  } catch (const std::exception& error) {
    block.error = error.what();
  }
  block.current->done = true;
  switch_away();
}

bool runs(const Thread& thread) {
  return !thread.done && (thread.waits_for == nullptr || *thread.waits_for != thread.seen);
}

void run_block(Block& block, std::mt19937& random) {
  std::vector<unsigned> order(block.warps.size());
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  for (bool left = true; left && block.error.empty();) {
    std::shuffle(order.begin(), order.end(), random);
    bool moved = false;
    left = false;
    for (const unsigned warp : order) {
      for (bool again = true; again && block.error.empty();) {
        again = false;
        for (unsigned lane = 0; lane < 32; ++lane) {
          Thread& thread = block.threads[warp * 32 + lane];
          if (!runs(thread)) continue;
          block.current = &thread;
          swapcontext(&block.scheduler, &thread.context);
          again = moved = true;
        }
      }
      for (unsigned lane = 0; lane < 32; ++lane) left |= !block.threads[warp * 32 + lane].done;
    }
    if (left && !moved && block.error.empty()) {
      block.error = "the threads of block " + std::to_string(block.index.x) + " wait for ever";
    }
  }
}

}  // namespace

const Index& thread_index() { return the_block->current->index; }
const Index& block_index() { return the_block->index; }
const Index& block_size() { return the_block->size; }
const Index& grid_size() { return the_block->grid; }

unsigned char* at(std::uint32_t address, std::size_t bytes) {
  if (address + bytes > the_block->shared_bytes) {
    throw std::runtime_error("thread " + std::to_string(thread_index().x) + " reaches byte " +
                             std::to_string(address + bytes) + " of shared memory; it has " +
                             std::to_string(the_block->shared_bytes));
  }
  return kernel::shared + address;
}

void meet_warp(void* mine, const std::function<void(void**)>& op) {
  Block& block = *the_block;
  const unsigned index = thread_index().x;
  Warp& warp = block.warps[index / 32];
  warp.slots[index % 32] = mine;
  const unsigned seen = warp.generation;
  if (++warp.come == 32) {
    op(warp.slots);
    warp.come = 0;
    ++warp.generation;
  } else {
    wait(warp.generation, seen);
  }
}

unsigned ballot(bool x) {
  struct Slot {
    bool in;
    unsigned out;
  } slot{x, 0};
  meet_warp(&slot, [](void** slots) {
    unsigned all = 0;
    for (unsigned i = 0; i < 32; ++i)
      all |= static_cast<unsigned>(static_cast<Slot*>(slots[i])->in) << i;
    for (unsigned i = 0; i < 32; ++i) static_cast<Slot*>(slots[i])->out = all;
  });
  return slot.out;
}

bool barrier(int number, int threads, bool waits, bool x) {
  if (number < 0 || number >= kBarriers) throw std::runtime_error("there is no such barrier");
  Barrier& barrier = the_block->barriers[number];
  barrier.any |= x;
  const unsigned seen = barrier.generation;
  if (++barrier.come == threads) {
    barrier.result = barrier.any;
    barrier.any = false;
    barrier.come = 0;
    ++barrier.generation;
  } else if (waits) {
    wait(barrier.generation, seen);
  }
  return barrier.result;
}

void copy_later(std::uint32_t to, const void* from) {
  auto& groups = the_block->current->groups;
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({to, from});
}

void commit_copies() { the_block->current->groups.emplace_back(); }

void wait_for_copies(int pending) {
  auto& groups = the_block->current->groups;
  // The last one is still open.
  while (static_cast<int>(groups.size()) - 1 > pending) {
    for (const Copy& copy : groups.front()) {
      unsigned char* to = at(copy.to, 16);
      if (copy.from == nullptr) {
        std::memset(to, 0, 16);
      } else {
        std::memcpy(to, copy.from, 16);
      }
    }
    groups.erase(groups.begin());
  }
}

void launch(unsigned blocks, unsigned threads, std::size_t shared_bytes, unsigned seed,
            const std::function<void()>& body) {
  std::mt19937 random(seed);
  std::vector<std::unique_ptr<char[]>> stacks;
  for (unsigned i = 0; i < threads; ++i) stacks.emplace_back(new char[kStack]);
  for (unsigned number = 0; number < blocks; ++number) {
    Block block;
    block.index = {number, 0, 0};
    block.size = {threads, 1, 1};
    block.grid = {blocks, 1, 1};
    block.body = &body;
    block.shared_bytes = shared_bytes;
    block.warps.resize(threads / 32);
    block.threads.resize(threads);
    the_block = &block;
    std::memset(kernel::shared, 0xff, sizeof(kernel::shared));
    for (unsigned i = 0; i < threads; ++i) {
      Thread& thread = block.threads[i];
      thread.index = {i, 0, 0};
      getcontext(&thread.context);
      thread.context.uc_stack = {stacks[i].get(), 0, kStack};
      thread.context.uc_link = nullptr;
      makecontext(&thread.context, thread_main, 0);
    }
    run_block(block, random);
    the_block = nullptr;
    if (!block.error.empty()) throw std::runtime_error(block.error);
  }
}

}  // namespace attune::emulator
