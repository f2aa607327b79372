#include "tests/emulator/block.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/emulator/fiber.h"

namespace attune::emulator {
namespace {

// Behind what a block asks for, so that a stray store by a plain pointer is seen.
constexpr std::size_t kGuardBytes = 4096;
constexpr unsigned char kPoison = 0xFF;

}  // namespace

// What device code declares as `extern __shared__ unsigned char shared[]` (device.h).
extern unsigned char shared_memory[] __asm__("attune_emulator_shared");
alignas(1024) unsigned char shared_memory[kMostSharedBytes + kGuardBytes];

namespace {

constexpr int kBarriers = 16;

struct Copy {
  std::uint32_t to;
  const void* from;
};

struct Thread {
  Index index;
  bool done = false;
  const unsigned* waits_for = nullptr;  // runs on once this is no longer `seen`
  unsigned seen = 0;
  std::vector<Copy> copies;          // under way
  std::vector<std::size_t> commits;  // how many of them were there at each
};

struct Warp {
  unsigned come = 0, generation = 0;
  WarpOp op = nullptr;
  void* lanes[32] = {};
  std::shared_ptr<void> state;
};

struct Barrier {
  int come = 0, threads = 0, with_x = 0, result = 0;
  unsigned generation = 0;
};

struct Cluster;

struct Block {
  Index index, size, grid;
  Cluster* cluster = nullptr;
  unsigned rank = 0;                  // in it
  std::vector<unsigned char> memory;  // what is shared, while another block runs
  std::size_t shared_bytes = 0;
  const std::function<void()>* body = nullptr;
  std::mt19937* random = nullptr;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barriers[kBarriers];
  std::deque<std::function<void()>> actions;  // of engines, in no order
  Thread* current = nullptr;
  std::string error;
};

// Blocks that run together. They take turns, each with its shared memory in the place where code expects it.
struct Cluster {
  std::vector<Block> blocks;
  unsigned come = 0, generation = 0;  // of threads, at its barrier
};

Block* the_block = nullptr;  // that runs

std::string name_of(const Index& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ")";
}

[[noreturn]] void fail_with(const std::string& what) {
  throw std::runtime_error("thread " + std::to_string(thread_index().x) + " of block " +
                           name_of(block_index()) + " " + what);
}

void wait(const unsigned& generation, unsigned seen) {
  Thread& me = *the_block->current;
  me.waits_for = &generation;
  me.seen = seen;
  Fiber::pause();
  me.waits_for = nullptr;
}

bool is_done(const Block& block) {
  return std::all_of(block.threads.begin(), block.threads.end(),
                     [](const Thread& thread) { return thread.done; });
}

// Fibers outlive blocks: a stack costs more than a block's work.
std::vector<std::unique_ptr<Fiber>>& fibers() {
  static std::vector<std::unique_ptr<Fiber>> all;
  return all;
}

void run_one_thread() {
  Block& block = *the_block;
  try {
    (*block.body)();
  } catch (const std::exception& error) {
    block.error = error.what();
  }
  block.current->done = true;
}

void make_fibers(std::size_t count) {
  while (fibers().size() < count) {
    fibers().push_back(std::make_unique<Fiber>([] {
      for (;;) {
        run_one_thread();
        Fiber::pause();
      }
    }));
  }
}

// One of the engines' actions, whichever; false when there is none.
bool act(Block& block) {
  if (block.actions.empty()) return false;
  std::swap(block.actions[(*block.random)() % block.actions.size()], block.actions.back());
  const std::function<void()> action = std::move(block.actions.back());
  block.actions.pop_back();
  action();
  return true;
}

bool runs(const Thread& thread) {
  return !thread.done && (thread.waits_for == nullptr || *thread.waits_for != thread.seen);
}

// Lets a warp run until it has to wait, or a while. False when it has to wait already.
bool run_warp(Block& block, unsigned warp) {
  const std::size_t first_fiber = block.rank * block.threads.size();
  bool moved = false;
  for (bool again = true; again;) {
    again = false;
    const unsigned flip = static_cast<unsigned>((*block.random)()) % 32;
    for (unsigned i = 0; i < 32; ++i) {
      const unsigned number = warp * 32 + (i ^ flip);
      Thread& thread = block.threads[number];
      if (!runs(thread)) continue;
      block.current = &thread;
      fibers()[first_fiber + number]->resume();
      if (!block.error.empty()) return true;
      again = moved = true;
    }
    if ((*block.random)() % 16 == 0) break;  // others may go first
  }
  return moved;
}

// Until nothing can move, or another block of the cluster may go first. Whether anything moved.
bool run_block(Block& block) {
  std::vector<unsigned> order(block.warps.size());
  std::iota(order.begin(), order.end(), 0u);
  bool moved_at_all = false;
  while (!is_done(block)) {
    std::shuffle(order.begin(), order.end(), *block.random);
    bool moved = false;
    for (const unsigned warp : order) {
      moved |= run_warp(block, warp);
      if (!block.error.empty()) return true;
      if ((*block.random)() % 8 == 0) moved |= act(block);
    }
    if (!moved && !act(block)) break;
    moved_at_all = true;
    if (block.cluster->blocks.size() > 1 && (*block.random)() % 64 == 0) break;
  }
  return moved_at_all;
}

// What is wrong with a block that has come to its end.
void inspect(Block& block) {
  if (!block.actions.empty()) {
    block.error = "block " + name_of(block.index) + " ends before its copies have arrived";
    return;
  }
  const unsigned char* const guard = shared_memory + block.shared_bytes;
  if (std::any_of(guard, guard + kGuardBytes, [](unsigned char x) { return x != kPoison; })) {
    block.error = "block " + name_of(block.index) + " wrote behind its " +
                  std::to_string(block.shared_bytes) + " bytes of shared memory";
  }
}

// Brings a block's shared memory to where code expects it.
void enter(Block& block) {
  if (the_block == &block) return;
  if (the_block != nullptr)
    the_block->memory.assign(shared_memory, shared_memory + the_block->memory.size());
  std::copy(block.memory.begin(), block.memory.end(), shared_memory);
  the_block = &block;
}

// Empty, or what went wrong.
std::string run_cluster(Cluster& cluster, std::mt19937& random) {
  std::vector<Block*> running;
  for (Block& block : cluster.blocks) running.push_back(&block);
  while (!running.empty()) {
    std::shuffle(running.begin(), running.end(), random);
    bool moved = false;
    for (Block* const block : running) {
      enter(*block);
      moved |= run_block(*block);
      if (block->error.empty() && is_done(*block)) inspect(*block);
      if (!block->error.empty()) return block->error;
    }
    if (!moved) return "the threads of block " + name_of(running.front()->index) + " wait for ever";
    std::erase_if(running, [](const Block* block) { return is_done(*block); });
  }
  return {};
}

void deliver(const Copy& copy) {
  unsigned char* const to = at(copy.to, 16);
  if (copy.from == nullptr) {
    std::memset(to, 0, 16);
  } else {
    std::memcpy(to, copy.from, 16);
  }
}

}  // namespace

const Index& thread_index() { return the_block->current->index; }
const Index& block_index() { return the_block->index; }
const Index& block_size() { return the_block->size; }
const Index& grid_size() { return the_block->grid; }

void fail(const char* what) { fail_with(what); }

unsigned char* at(std::uint32_t address, std::size_t bytes) {
  if (address + bytes > the_block->shared_bytes) {
    fail_with("reaches byte " + std::to_string(address + bytes) + " of shared memory; it has " +
              std::to_string(the_block->shared_bytes));
  }
  return static_cast<unsigned char*>(aligned(shared_memory + address, bytes));
}

std::uint32_t address_of(const void* shared) {
  return static_cast<std::uint32_t>(static_cast<const unsigned char*>(shared) - shared_memory);
}

unsigned cluster_blocks() { return static_cast<unsigned>(the_block->cluster->blocks.size()); }
unsigned cluster_rank() { return the_block->rank; }

void cluster_barrier() {
  Cluster& cluster = *the_block->cluster;
  const unsigned seen = cluster.generation;
  if (++cluster.come == cluster.blocks.size() * the_block->threads.size()) {
    cluster.come = 0;
    ++cluster.generation;
  } else {
    wait(cluster.generation, seen);
  }
}

unsigned char* at_block(unsigned rank, std::uint32_t address, std::size_t bytes) {
  if (rank >= cluster_blocks()) fail("reaches for a block of no cluster");
  Block& block = the_block->cluster->blocks[rank];
  unsigned char* const mine = at(address, bytes);  // checked alike
  if (&block == the_block) return mine;
  if (is_done(block)) fail("reaches for the shared memory of a block that has ended");
  return block.memory.data() + address;
}

const void* aligned(const void* p, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes != 0) {
    fail_with("reads or writes " + std::to_string(bytes) + " bytes where they are not aligned");
  }
  return p;
}

void meet_warp(void* mine, WarpOp op) {
  const unsigned index = thread_index().x;
  Warp& warp = the_block->warps[index / 32];
  if (warp.come == 0) warp.op = op;
  if (warp.op != op) fail("meets its warp at another instruction than other lanes");
  warp.lanes[index % 32] = mine;
  const unsigned seen = warp.generation;
  if (++warp.come == 32) {
    op(warp.lanes);
    warp.come = 0;
    ++warp.generation;
  } else {
    wait(warp.generation, seen);
  }
}

int barrier(int number, int threads, bool waits, bool x) {
  if (number < 0 || number >= kBarriers) fail("waits at a barrier that is none of the 16");
  Barrier& barrier = the_block->barriers[number];
  if (barrier.come == 0) barrier.threads = threads;
  if (barrier.threads != threads || threads % 32 != 0) {
    fail("expects another number of threads at a barrier than the others");
  }
  barrier.with_x += x ? 1 : 0;
  const unsigned seen = barrier.generation;
  if (++barrier.come == threads) {
    barrier.result = barrier.with_x;
    barrier.with_x = 0;
    barrier.come = 0;
    ++barrier.generation;
  } else if (waits) {
    wait(barrier.generation, seen);
    // Who arrives and does not wait may be two barriers ahead; bar.red has no such callers.
  }
  return barrier.result;
}

bool chance(unsigned times) { return (*the_block->random)() % times == 0; }

void later(std::function<void()> action) {
  if (chance(4)) {
    action();
  } else {
    the_block->actions.push_back(std::move(action));
  }
}

void wait_for_change(const unsigned& word) { wait(word, word); }

std::shared_ptr<void>& state_of_warp(unsigned warp) { return the_block->warps.at(warp).state; }
std::shared_ptr<void>& state_of_warp() { return state_of_warp(thread_index().x / 32); }

void copy_later(std::uint32_t to, const void* from) {
  const Copy copy{to, aligned(from, 16)};
  (void)at(to, 16);
  if ((*the_block->random)() % 4 == 0) {
    deliver(copy);
  } else {
    the_block->current->copies.push_back(copy);
  }
}

void commit_copies() {
  Thread& me = *the_block->current;
  me.commits.push_back(me.copies.size());
}

void wait_for_copies(int pending) {
  Thread& me = *the_block->current;
  const auto may_stay = static_cast<std::size_t>(pending);
  if (me.commits.size() <= may_stay) return;
  const auto groups = static_cast<std::ptrdiff_t>(me.commits.size() - may_stay);
  const std::size_t count = me.commits[static_cast<std::size_t>(groups - 1)];
  std::for_each_n(me.copies.begin(), count, deliver);
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(count));
  me.commits.erase(me.commits.begin(), me.commits.begin() + groups);
  for (std::size_t& commit : me.commits) commit -= count;
}

void launch(const Launch& how, const std::function<void()>& body) {
  if (how.shared_bytes > kMostSharedBytes || how.threads % 32 != 0 || how.threads > 1024) {
    throw std::runtime_error("no device runs such a block");
  }
  constexpr unsigned kMostCluster = 8;
  if (how.cluster == 0 || how.cluster > kMostCluster || how.grid.x % how.cluster != 0) {
    throw std::runtime_error("no device runs such clusters");
  }
  std::mt19937 random(how.seed);
  std::vector<Index> firsts;  // of clusters
  for (unsigned y = 0; y < how.grid.y; ++y) {
    for (unsigned x = 0; x < how.grid.x; x += how.cluster) firsts.push_back({x, y, 0});
  }
  std::shuffle(firsts.begin(), firsts.end(), random);
  make_fibers(std::size_t{how.cluster} * how.threads);
  for (const Index& first : firsts) {
    Cluster cluster;
    cluster.blocks.resize(how.cluster);
    for (unsigned rank = 0; rank < how.cluster; ++rank) {
      Block& block = cluster.blocks[rank];
      block.index = {first.x + rank, first.y, 0};
      block.size = {how.threads, 1, 1};
      block.grid = how.grid;
      block.cluster = &cluster;
      block.rank = rank;
      block.memory.assign(how.shared_bytes + kGuardBytes, kPoison);
      block.shared_bytes = how.shared_bytes;
      block.body = &body;
      block.random = &random;
      block.warps.resize(how.threads / 32);
      block.threads.resize(how.threads);
      for (unsigned i = 0; i < how.threads; ++i) block.threads[i].index = {i, 0, 0};
    }
    const std::string error = run_cluster(cluster, random);
    the_block = nullptr;
    if (!error.empty()) {
      fibers().clear();  // those that are in the middle of something
      throw std::runtime_error(error);
    }
  }
}

}  // namespace attune::emulator
