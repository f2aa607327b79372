// A ring of tiles in shared memory that the copy engine fills and warps empty, in turns that both sides
// count. Full and free are barriers of one phase a round.
#pragma once

#include <attune/arch/mbarrier.cuh>

namespace attune::kernel {

// With kMates the tiles of two blocks of threads are filled together, and free when both have emptied them. kFulls: of
// turns so far apart the tiles are full by the same barrier. A test of a barrier tells one round from the next alone,
// so each has to have one reader, or all of a tile's.
template <int kStages, bool kMates = false, int kFulls = kStages>
struct Ring {
  static constexpr int kBarrierBytes = (kFulls + kStages) * 8;
  u32 tiles, barriers;
  int bytes;  // that a tile is filled with
  int stride = bytes;
  u32 mate = 0;  // the other's barriers

  // By one thread, before a fence and a block's barrier.
  __device__ __forceinline__ void init(int readers, int writers = 1) const {
    for (int i = 0; i < kFulls; ++i) mbarrier_init(barriers + 8 * i, writers);
    for (int i = 0; i < kStages; ++i) mbarrier_init(barriers + 8 * (kFulls + i), readers);
  }

  [[nodiscard]] __device__ __forceinline__ u32 tile(u32 turn) const {
    return tiles + turn % kStages * stride;
  }
  [[nodiscard]] __device__ __forceinline__ u32 full(u32 turn) const {
    return barriers + turn % kFulls * 8;
  }

  // Writer.
  __device__ __forceinline__ void await_free(u32 turn) const {
    mbarrier_wait(barriers + free(turn), turn / kStages & 1 ^ 1);
  }
  // Once the tile is free, announces its bytes.
  __device__ __forceinline__ void fill(u32 turn) const {
    await_free(turn);
    mbarrier_expect(full(turn), bytes);
  }

  // Readers.
  [[nodiscard]] __device__ __forceinline__ bool is_full(u32 turn) const {
    return mbarrier_test(full(turn), turn / kFulls & 1);
  }
  __device__ __forceinline__ void await_full(u32 turn) const {
    mbarrier_wait(full(turn), turn / kFulls & 1);
  }
  // One thread of each: a warp, since it knows of its own products alone that they are complete.
  __device__ __forceinline__ void release(u32 turn, bool leads) const {
    if (!leads) return;
    mbarrier_arrive(barriers + free(turn));
    if constexpr (kMates) mbarrier_arrive_there(mate + free(turn));
  }

 private:
  // Behind the first barrier.
  static __device__ __forceinline__ u32 free(u32 turn) { return 8 * kFulls + turn % kStages * 8; }
};

}  // namespace attune::kernel
