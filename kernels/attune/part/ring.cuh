// A ring of tiles in shared memory that the copy engine fills and warps empty. Each side keeps its own
// place; full and free are barriers of one phase a round.
#pragma once

#include <attune/arch/mbarrier.cuh>

namespace attune::kernel {

template <int kStages>
struct Ring {
  static constexpr int kBarrierBytes = 2 * kStages * 8;
  u32 tiles, barriers;
  int bytes;  // of a tile
  int stage = 0;
  u32 parity = 0;  // of this round

  __device__ __forceinline__ Ring(u32 tiles, int bytes, u32 barriers)
      : tiles(tiles), barriers(barriers), bytes(bytes) {}

  // By one thread, before a fence and a block's barrier.
  __device__ __forceinline__ void init(int readers) const {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(barriers + 8 * i, 1);
      mbarrier_init(barriers + 8 * (kStages + i), readers);
    }
  }

  [[nodiscard]] __device__ __forceinline__ u32 tile() const { return tiles + stage * bytes; }
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }

  // Writer: once the tile is free, announces its bytes; the barrier that they are to arrive at.
  [[nodiscard]] __device__ __forceinline__ u32 fill() const {
    const u32 full = barriers + 8 * stage;
    mbarrier_wait(full + 8 * kStages, parity ^ 1);
    mbarrier_expect(full, bytes);
    return full;
  }

  // Readers.
  __device__ __forceinline__ void await_full() const { mbarrier_wait(barriers + 8 * stage, parity); }
  // One thread of each: a warp, since it knows of its own products alone that they are complete.
  __device__ __forceinline__ void release(bool leads) {
    if (leads) mbarrier_arrive(barriers + 8 * (kStages + stage));
    advance();
  }
};

}  // namespace attune::kernel
