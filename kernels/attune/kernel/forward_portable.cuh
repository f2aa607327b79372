// Stand-in with the portable forward kernel's interface: enough to compile, cache and bundle.
#pragma once

#include <attune/kernel/forward_portable_layout.h>
#include <attune/params.h>

namespace attune::kernel {

template <PortableForward kSpec>
__device__ void forward_portable(const ForwardParams& params) {
  extern __shared__ unsigned char shared[];
  shared[threadIdx.x] = static_cast<unsigned char>(params.sq + kSpec.keys);
  __syncthreads();
  if (params.lse.data != nullptr && blockIdx.x < params.tiles) {
    params.lse.data[threadIdx.x] = params.scale * shared[threadIdx.x ^ 1];
  }
}

}  // namespace attune::kernel
