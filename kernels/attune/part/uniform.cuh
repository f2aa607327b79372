// What all lanes of a warp agree on, said so that the compiler knows: it then computes with it once a warp.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

__device__ __forceinline__ int uniform(int x) { return __shfl_sync(~0u, x, 0); }
__device__ __forceinline__ u32 uniform(u32 x) { return __shfl_sync(~0u, x, 0); }

}  // namespace attune::kernel
