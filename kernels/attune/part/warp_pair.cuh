// What the warps that own the same rows tell each other: nothing where a warp owns them alone.
#pragma once

#include <attune/arch/barrier.cuh>
#include <attune/arch/shared.cuh>
#include <attune/part/products.cuh>

namespace attune::kernel {

template <typename W>
struct WarpPair {
  u32 exchange;  // shared memory, a float for each warp and row of it

  __device__ __forceinline__ explicit WarpPair(u32 exchange) : exchange(exchange) {}

  // What either wrote to shared memory before, both read afterwards.
  static __device__ __forceinline__ void sync() {
    if constexpr (W::kPaired) {
      barrier_sync(threadIdx.x / 64 + 1, 64);
    } else {
      __syncwarp();
    }
  }

  // As sync(); whether x holds for any thread of the two.
  [[nodiscard]] static __device__ __forceinline__ bool any(bool x) {
    if constexpr (W::kPaired) {
      return barrier_or(threadIdx.x / 64 + 1, 64, x);
    } else {
      return __any_sync(~0u, x);
    }
  }

  // x = combine(x, the other warp's x), where x is of rows and the same in a row's four lanes. A
  // barrier must lie between two calls.
  template <typename Combine>
  __device__ __forceinline__ void combine(float (&x)[W::kRowTiles][2],
                                          const Combine& combine) const {
    if constexpr (W::kPaired) {
      const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
      const auto at = [&](int of, int m, int half) {
        return exchange + 4 * (of * W::kWarpRows + 16 * m + 8 * half + lane / 4);
      };
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (lane % 4 == 0) store_shared(at(warp, m, half), __float_as_uint(x[m][half]));
        }
      }
      sync();
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          x[m][half] = combine(x[m][half], __uint_as_float(load_shared(at(warp ^ 1, m, half))));
        }
      }
    }
  }
  __device__ __forceinline__ void larger_of(float (&x)[W::kRowTiles][2]) const {
    combine(x, [](float a, float b) { return fmaxf(a, b); });
  }
  __device__ __forceinline__ void sum_of(float (&x)[W::kRowTiles][2]) const {
    combine(x, [](float a, float b) { return a + b; });
  }
};

}  // namespace attune::kernel
