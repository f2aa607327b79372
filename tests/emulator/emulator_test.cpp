// The emulator itself: it computes what a GPU does, and it sees the mistakes that it is there for.
#include <gtest/gtest.h>

#include <attune/arch/barrier.cuh>
#include <attune/arch/cluster.cuh>
#include <attune/arch/mma.cuh>
#include <attune/arch/shared.cuh>
#include <attune/arch/wgmma.cuh>
#include <attune/part/transpose_values.cuh>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/emulator/block.h"

namespace attune::emulator {
namespace {

using attune::kernel::u32;

constexpr unsigned kSeeds = 20;

// Empty, or what the emulator says.
std::string run(const Launch& how, const std::function<void()>& body) {
  try {
    launch(how, body);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return {};
}

Launch block_of(unsigned threads, std::size_t shared_bytes = 0, unsigned seed = 1) {
  Launch how;
  how.threads = threads;
  how.shared_bytes = shared_bytes;
  how.seed = seed;
  return how;
}

// Every thread hands its number to one of another warp through shared memory. How many of the seeds
// get a wrong result.
unsigned wrong_reversals(bool synchronize) {
  constexpr unsigned kThreads = 128;
  unsigned wrong = 0;
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    std::vector<u32> out(kThreads);
    EXPECT_EQ(run(block_of(kThreads, 4 * kThreads, seed),
                  [&] {
                    const u32 i = threadIdx.x;
                    kernel::store_shared(4 * i, i);
                    if (synchronize) __syncthreads();
                    out[i] = kernel::load_shared(4 * (kThreads - 1 - i));
                  }),
              "");
    bool right = true;
    for (u32 i = 0; i < kThreads; ++i) right &= out[i] == kThreads - 1 - i;
    wrong += right ? 0 : 1;
  }
  return wrong;
}

TEST(Emulator, SeesAMissingSyncthreads) {
  EXPECT_EQ(wrong_reversals(true), 0u);
  EXPECT_EQ(wrong_reversals(false), kSeeds);
}

// As above, inside one warp.
TEST(Emulator, SeesAMissingSyncwarp) {
  for (const bool synchronize : {true, false}) {
    unsigned wrong = 0;
    for (unsigned seed = 0; seed < kSeeds; ++seed) {
      bool right = true;
      EXPECT_EQ(run(block_of(32, 128, seed),
                    [&] {
                      const u32 i = threadIdx.x;
                      kernel::store_shared(4 * i, i);
                      if (synchronize) __syncwarp();
                      right &= kernel::load_shared(4 * (31 - i)) == 31 - i;
                    }),
                "");
      wrong += right ? 0 : 1;
    }
    EXPECT_EQ(wrong, synchronize ? 0 : kSeeds);
  }
}

// A buffer that is written again while a slow warp still reads it: wrong under some orders only.
TEST(Emulator, SeesABufferThatIsReusedTooEarly) {
  for (const bool synchronize : {true, false}) {
    unsigned wrong = 0;
    for (unsigned seed = 0; seed < kSeeds; ++seed) {
      bool right = true;
      EXPECT_EQ(run(block_of(128, 16, seed),
                    [&] {
                      for (u32 turn = 0; turn < 4; ++turn) {
                        if (threadIdx.x == 0) kernel::store_shared(0, turn);
                        __syncthreads();
                        right &= kernel::load_shared(0) == turn;
                        if (synchronize) __syncthreads();
                      }
                    }),
                "");
      wrong += right ? 0 : 1;
    }
    EXPECT_EQ(wrong == 0, synchronize) << wrong;
  }
}

TEST(Emulator, SeesAnAccessOutsideOfSharedMemory) {
  EXPECT_EQ(run(block_of(32, 128), [] { kernel::store_shared(4 * threadIdx.x, 1); }), "");
  const std::string said = run(block_of(64, 128), [] { kernel::store_shared(4 * threadIdx.x, 1); });
  EXPECT_NE(said.find("shared memory; it has 128"), std::string::npos) << said;
  EXPECT_NE(run(block_of(32, 128), [] { (void)kernel::load_shared(126); }), "");
  const std::string by_pointer = run(block_of(32, 128), [] { kernel::shared[128] = 0; });
  EXPECT_NE(by_pointer.find("behind its 128 bytes"), std::string::npos) << by_pointer;
}

TEST(Emulator, SeesAMisalignedAccess) {
  alignas(16) unsigned char memory[32] = {};
  EXPECT_EQ(run(block_of(32, 32), [&] { kernel::copy_async(16, memory + 16, true); }), "");
  EXPECT_NE(run(block_of(32, 32), [&] { kernel::copy_async(8, memory, true); }), "");
  EXPECT_NE(run(block_of(32, 32), [&] { kernel::copy_async(0, memory + 8, true); }), "");
}

// How many of the seeds read something else than what was copied.
unsigned wrong_copies(bool wait) {
  alignas(16) u32 from[128];
  for (u32 i = 0; i < 128; ++i) from[i] = i;
  unsigned wrong = 0;
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    bool right = true;
    EXPECT_EQ(run(block_of(32, sizeof(from), seed),
                  [&] {
                    const u32 i = threadIdx.x;
                    kernel::copy_async(16 * i, from + 4 * i, true);
                    kernel::commit_copies();
                    if (wait) kernel::wait_for_copies<0>();
                    right &= kernel::load_shared(16 * i) == 4 * i;
                  }),
              "");
    wrong += right ? 0 : 1;
  }
  return wrong;
}

TEST(Emulator, SeesACopyThatNobodyWaitedFor) {
  EXPECT_EQ(wrong_copies(true), 0u);
  EXPECT_EQ(wrong_copies(false), kSeeds);
}

// A copy that starts while others still read what it overwrites.
TEST(Emulator, LetsCopiesArriveEarlyToo) {
  alignas(16) const u32 from[4] = {1, 1, 1, 1};
  unsigned early = 0;
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    EXPECT_EQ(run(block_of(32, 16, seed),
                  [&] {
                    if (threadIdx.x != 0) return;
                    kernel::store_shared(0, 0);
                    kernel::copy_async(0, from, true);
                    early += kernel::load_shared(0);
                  }),
              "");
  }
  EXPECT_GT(early, 0u);
  EXPECT_LT(early, kSeeds);
}

TEST(Emulator, CopiesArriveGroupByGroup) {
  alignas(16) const u32 from[4] = {7, 7, 7, 7};
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    u32 first = 0, zeros = 1;
    EXPECT_EQ(run(block_of(32, 48, seed),
                  [&] {
                    if (threadIdx.x != 0) return;
                    kernel::copy_async(0, from, true);
                    kernel::copy_async(16, from, false);
                    kernel::commit_copies();
                    kernel::copy_async(32, from, true);
                    kernel::commit_copies();
                    kernel::wait_for_copies<1>();
                    first = kernel::load_shared(0);
                    zeros = kernel::load_shared(16);
                  }),
              "");
    EXPECT_EQ(first, 7u);
    EXPECT_EQ(zeros, 0u);
  }
}

TEST(Emulator, SeesADeadlock) {
  const std::string said = run(block_of(64), [] {
    if (threadIdx.x < 32) {
      kernel::barrier_sync(1, 64);
    } else {
      kernel::barrier_sync(2, 64);
    }
  });
  EXPECT_NE(said.find("wait for ever"), std::string::npos) << said;
  EXPECT_NE(run(block_of(64),
                [] {
                  if (threadIdx.x != 5) __syncthreads();
                }),
            "");
  // Threads left over from a failure are in nobody's way.
  EXPECT_EQ(run(block_of(64), [] { __syncthreads(); }), "");
}

TEST(Emulator, SeesLanesThatMeetAtDifferentInstructions) {
  const std::string said = run(block_of(32), [] {
    if (threadIdx.x == 3) {
      (void)__shfl_xor_sync(~0u, 1.0f, 1);
    } else {
      (void)__any_sync(~0u, 1);
    }
  });
  EXPECT_NE(said.find("another instruction"), std::string::npos) << said;
  EXPECT_NE(run(block_of(32), [] { (void)__any_sync(0xffffu, 1); }), "");
}

// A barrier that some only arrive at.
TEST(Emulator, HasNamedBarriers) {
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    u32 value = 0;
    bool right = true;
    EXPECT_EQ(run(block_of(96, 16, seed),
                  [&] {
                    if (threadIdx.x < 32) {
                      value = 5;
                      kernel::barrier_arrive(3, 64);
                    } else if (threadIdx.x < 64) {
                      kernel::barrier_sync(3, 64);
                      right &= value == 5;
                    }
                    right &= kernel::barrier_or(4, 96, threadIdx.x == 70);
                    right &= !kernel::barrier_or(4, 96, false);
                  }),
              "");
    EXPECT_TRUE(right);
  }
}

TEST(Emulator, HasTheWordsOfWarpsAndBlocks) {
  bool right = true;
  EXPECT_EQ(run(block_of(64),
                [&] {
                  const unsigned i = threadIdx.x, lane = i % 32;
                  right &= __shfl_sync(~0u, i, 7) == i / 32 * 32 + 7;
                  right &= __shfl_sync(~0u, lane, 1, 4) == lane / 4 * 4 + 1;
                  right &= __shfl_xor_sync(~0u, lane, 5) == (lane ^ 5);
                  right &= __shfl_down_sync(~0u, lane, 3) == (lane < 29 ? lane + 3 : lane);
                  right &= __shfl_up_sync(~0u, lane, 3) == (lane >= 3 ? lane - 3 : lane);
                  right &= __ballot_sync(~0u, lane % 2) == 0xaaaaaaaau;
                  right &= __any_sync(~0u, lane == 9) != 0 && __any_sync(~0u, 0) == 0;
                  right &= __all_sync(~0u, lane < 32) != 0 && __all_sync(~0u, lane != 4) == 0;
                  right &= __syncthreads_or(i == 40) != 0 && __syncthreads_or(0) == 0;
                  right &= __syncthreads_and(i < 64) != 0 && __syncthreads_and(i != 1) == 0;
                  right &= __syncthreads_count(i % 4 == 0) == 16;
                }),
            "");
  EXPECT_TRUE(right);
}

// Blocks that add in the order of their tickets, whatever order they run in.
TEST(Emulator, BlocksTakeTurns) {
  Launch how = block_of(64);
  how.grid = {5, 3, 1};
  for (how.seed = 0; how.seed < kSeeds; ++how.seed) {
    u32 drawn = 0, turn = 0;
    int blocks = 0;
    bool in_order = true;
    EXPECT_EQ(run(how,
                  [&] {
                    if (threadIdx.x == 0) {
                      const u32 ticket = kernel::next_ticket(&drawn);
                      kernel::wait_for_turn(&turn, ticket);
                      in_order &= ticket == turn;
                      kernel::pass_turn(&turn, ticket + 1);
                      atomicAdd(&blocks, 1);
                      __threadfence();
                    }
                    __syncthreads();
                  }),
              "");
    EXPECT_TRUE(in_order);
    EXPECT_EQ(blocks, 15);
  }
  const std::string said = run(how, [] {
    const u32 counter = 0;
    kernel::wait_for_turn(&counter, 1);
  });
  EXPECT_NE(said.find("never comes"), std::string::npos) << said;
}

TEST(Emulator, RunsBlocksInAnyOrder) {
  Launch how = block_of(32);
  how.grid = {8, 1, 1};
  std::vector<unsigned> order;
  EXPECT_EQ(run(how,
                [&] {
                  if (threadIdx.x == 0) order.push_back(blockIdx.x);
                }),
            "");
  EXPECT_EQ(order.size(), 8u);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
}

Launch clusters_of(unsigned blocks, unsigned grid, unsigned threads, std::size_t shared_bytes) {
  Launch how = block_of(threads, shared_bytes);
  how.grid = {grid, 2, 1};
  how.cluster = blocks;
  return how;
}

// Every thread reads what the same thread of the next block wrote.
unsigned wrong_neighbours(bool synchronize) {
  constexpr unsigned kBlocks = 4, kGrid = 8, kThreads = 64;
  Launch how = clusters_of(kBlocks, kGrid, kThreads, 8 * kThreads);
  unsigned wrong = 0;
  for (how.seed = 0; how.seed < kSeeds; ++how.seed) {
    bool right = true;
    EXPECT_EQ(run(how,
                  [&] {
                    const int rank = kernel::cluster_rank();
                    right &= kernel::cluster_blocks() == static_cast<int>(kBlocks);
                    right &= static_cast<unsigned>(rank) == blockIdx.x % kBlocks;
                    const u32 at = 8 * threadIdx.x;
                    kernel::store_shared(at, blockIdx.x, threadIdx.x);
                    if (synchronize) kernel::cluster_sync();
                    const unsigned next = (static_cast<unsigned>(rank) + 1) % kBlocks;
                    u32 read[2];
                    kernel::load_cluster(read, kernel::cluster_address(at, static_cast<int>(next)));
                    right &= read[0] == blockIdx.x / kBlocks * kBlocks + next;
                    right &= read[1] == threadIdx.x;
                    kernel::cluster_sync();
                  }),
              "");
    wrong += right ? 0 : 1;
  }
  return wrong;
}

TEST(Emulator, BlocksOfAClusterReadEachOther) {
  EXPECT_EQ(wrong_neighbours(true), 0u);
  EXPECT_EQ(wrong_neighbours(false), kSeeds);
}

// Without a barrier at the end the memory of a block that others read may be gone.
TEST(Emulator, SeesABlockThatEndsTooEarly) {
  Launch how = clusters_of(2, 2, 32, 128);
  unsigned seen = 0;
  for (how.seed = 0; how.seed < kSeeds; ++how.seed) {
    const std::string said = run(how, [] {
      u32 read[4];
      kernel::cluster_sync();
      kernel::load_cluster(read, kernel::cluster_address(0, 1 - kernel::cluster_rank()), true);
    });
    seen += said.find("a block that has ended") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(seen, kSeeds);
}

TEST(Emulator, SeesDeadlocksAndStrayReadsOfClusters) {
  const Launch how = clusters_of(2, 4, 64, 128);
  const std::string left_out = run(how, [] {
    if (kernel::cluster_rank() == 1 || threadIdx.x < 32) kernel::cluster_sync();
  });
  EXPECT_NE(left_out.find("wait for ever"), std::string::npos) << left_out;
  u32 read[4];
  EXPECT_NE(run(how, [&] { kernel::load_cluster(read, 0, true); }), "");
  EXPECT_NE(run(how, [&] { kernel::load_cluster(read, kernel::cluster_address(0, 2), true); }), "");
  EXPECT_NE(run(how, [&] { kernel::load_cluster(read, kernel::cluster_address(120, 1), true); }),
            "");
  EXPECT_EQ(run(how, [&] { kernel::load_cluster(read, kernel::cluster_address(0, 1), false); }),
            "");
  EXPECT_EQ(read[3], 0u);
  EXPECT_NE(run(clusters_of(3, 4, 32, 0), [] {}), "") << "a grid is whole clusters";
}

TEST(Emulator, SeesWarpsThatWaitForProductsApart) {
  const Launch how = block_of(256);
  EXPECT_EQ(run(how,
                [] {
                  if (threadIdx.x < 128) kernel::wgmma_commit();  // other groups need not
                  kernel::wgmma_wait<0>();
                }),
            "");
  const std::string said = run(how, [] {
    if (threadIdx.x / 32 == 5) kernel::wgmma_wait<0>();
    kernel::wgmma_commit();
  });
  EXPECT_NE(said.find("what its group does"), std::string::npos) << said;
}

// The fragments of the PTX ISA, by the definition of a product.
TEST(Emulator, MultipliesFragments) {
  float c[16][8] = {};
  EXPECT_EQ(run(block_of(32),
                [&] {
                  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
                  // A[i][k] = i + k, B[k][n] = k == n: the result is A's first 8 columns.
                  const auto a_at = [](int i, int k) { return static_cast<float>(i + k); };
                  const auto b_at = [](int k, int n) { return k == n ? 1.0f : 0.0f; };
                  u32 a[4], b[2];
                  for (int r = 0; r < 4; ++r) {
                    const int i = g + r % 2 * 8, k = 2 * t + r / 2 * 8;
                    a[r] = kernel::pack_f16(a_at(i, k), a_at(i, k + 1));
                  }
                  for (int r = 0; r < 2; ++r) {
                    const int k = 2 * t + r * 8;
                    b[r] = kernel::pack_f16(b_at(k, g), b_at(k + 1, g));
                  }
                  float sum[4] = {};
                  kernel::mma16<false>(sum, a, b[0], b[1]);
                  for (int x = 0; x < 4; ++x) c[g + x / 2 * 8][2 * t + x % 2] = sum[x];
                }),
            "");
  for (int i = 0; i < 16; ++i) {
    for (int n = 0; n < 8; ++n) EXPECT_EQ(c[i][n], static_cast<float>(i + n));
  }
}

TEST(Emulator, ConvertsF16) {
  EXPECT_EQ(kernel::f16_to_float(0x3c00), 1.0f);
  EXPECT_EQ(kernel::f16_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(kernel::f16_to_float(0xfbff), -65504.0f);
  EXPECT_EQ(kernel::f16_to_float(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(kernel::f16_to_float(0x7c01)));
  for (u32 x = 0; x < 1 << 16; ++x) {
    const auto bits = static_cast<unsigned short>(x);
    const float value = kernel::f16_to_float(bits);
    if (std::isnan(value)) {
      EXPECT_EQ(kernel::float_to_f16(value), 0x7fff);
      continue;
    }
    ASSERT_EQ(kernel::float_to_f16(value), bits);
    // Halfway to the next: the even one of the two.
    if ((x & 0x7fff) >= 0x7bff) continue;
    const float next = kernel::f16_to_float(static_cast<unsigned short>(x + 1));
    ASSERT_EQ(kernel::float_to_f16((value + next) / 2), x + (x & 1)) << x;
  }
  EXPECT_EQ(kernel::float_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(kernel::float_to_f16(65520.0f), 0x7c00);
}

TEST(Emulator, ConvertsE4M3) {
  EXPECT_EQ(kernel::e4m3_to_float(0x38), 1.0f);
  EXPECT_EQ(kernel::e4m3_to_float(0x01), 0x1p-9f);
  EXPECT_EQ(kernel::e4m3_to_float(0xfe), -448.0f);
  const auto convert = [](float x) { return kernel::pack_e4m3(x, 1.0f, -x, 2.0f); };
  for (u32 x = 0; x < 0x7f; ++x) {
    const float value = kernel::e4m3_to_float(static_cast<unsigned char>(x));
    ASSERT_EQ(convert(value), x | 0x38u << 8 | (x | 0x80u) << 16 | 0x40u << 24);
    if (x == 0x7e) continue;
    const float next = kernel::e4m3_to_float(static_cast<unsigned char>(x + 1));
    ASSERT_EQ(convert((value + next) / 2) & 0xffu, x + (x & 1)) << x;
  }
  EXPECT_EQ(convert(1e30f) & 0xff00ffu, 0xfe007eu);
  EXPECT_EQ(convert(std::numeric_limits<float>::infinity()) & 0xffu, 0x7eu);
  EXPECT_EQ(convert(std::nanf("")) & 0xffu, 0x7fu);
  EXPECT_TRUE(std::isnan(kernel::e4m3_to_float(0xff)));
}

// Byte `byte` of row `row` of a tile of so many rows, whose chunks are exchanged.
u32 swizzled(u32 rows, u32 row, u32 byte) {
  return byte / 128 * (rows * 128) + row * 128 + ((byte / 16 % 8 ^ row % 8) << 4) + byte % 16;
}

template <int kKeys, int kColumns>
void expect_transposed(u32 rows) {
  constexpr u32 kTo = kKeys * ((kColumns + 127) / 128) * 128;
  constexpr u32 kBytes = kTo + kColumns * ((kKeys + 127) / 128) * 128;
  const auto value = [](u32 key, u32 column) {
    return static_cast<unsigned char>(key * 7 + column * 13 + 1);
  };
  std::vector<unsigned char> got(kBytes);
  EXPECT_EQ(run(block_of(32, kBytes),
                [&] {
                  if (threadIdx.x == 0) {
                    for (u32 key = 0; key < kKeys; ++key) {
                      for (u32 c = 0; c < kColumns; ++c) {
                        *at(swizzled(kKeys, key, c), 1) = value(key, c);
                      }
                    }
                  }
                  __syncwarp();
                  for (u32 warp = 0; warp < 2; ++warp) {
                    if (rows < kKeys) {
                      kernel::transpose_values<kKeys, kColumns, 2, true>(0, kTo, warp,
                                                                         static_cast<int>(rows));
                    } else {
                      kernel::transpose_values<kKeys, kColumns, 2, false>(0, kTo, warp, kKeys);
                    }
                  }
                  __syncwarp();
                  if (threadIdx.x == 0) {
                    for (u32 i = 0; i < kBytes; ++i) got[i] = *at(i, 1);
                  }
                }),
            "");
  for (u32 c = 0; c < kColumns; ++c) {
    for (u32 place = 0; place < kKeys; ++place) {
      // Place 16 h + 4 t + 2 j + e of a group of 32 has key 16 h + 8 j + 2 t + e.
      const u32 key = (place & ~15u) + (place >> 1 & 1) * 8 + (place >> 2 & 3) * 2 + (place & 1);
      const u32 want = key < rows ? value(key, c) : 0;
      ASSERT_EQ(got[kTo + swizzled(kColumns, c, place)], want) << c << " " << place;
    }
  }
}

TEST(Emulator, TransposesValues) {
  expect_transposed<128, 64>(128);
  expect_transposed<64, 256>(64);
  expect_transposed<192, 128>(192);
  expect_transposed<96, 128>(41);
  for (const u32 rows : {0u, 1u, 2u, 31u, 64u, 127u}) expect_transposed<128, 64>(rows);
}

}  // namespace
}  // namespace attune::emulator
