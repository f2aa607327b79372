// Arguments: every tensor that a Problem can name. What the Problem does not use stays empty.
#pragma once

#include <attune/export.h>

#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstdint>

namespace attune {

struct Arguments {
  // Inputs.                 dense                 packed                 paged
  TensorView q = {};  // [B, Sq, Hq, D]        [1, total_q, Hq, D]
  TensorView k = {};  // [B, Sk, Hkv, D]       [1, total_k, Hkv, D]   [pages, page_size, Hkv, D]
  TensorView v = {};  // [B, Sk, Hkv, Dv]      [1, total_k, Hkv, Dv]  [pages, page_size, Hkv, Dv]
  TensorView q_scale = {};       // f32 [B, Hq]: with Problem's descale, as the next two
  TensorView k_scale = {};       // f32 [B, Hkv], of each sequence also where its keys are paged
  TensorView v_scale = {};       // f32 [B, Hkv]
  TensorView bias = {};          // [B|1, Hq|1, Sq|1, Sk|1]
  TensorView alibi_slopes = {};  // f32 [Hq] or [B, Hq]
  TensorView sink = {};          // f32 [Hq]
  TensorView key_lengths = {};   // i32 [B]
  TensorView cu_seqlens_q = {};  // i32 [B + 1]
  TensorView cu_seqlens_k = {};  // i32 [B + 1]
  TensorView page_table = {};    // i32 [B, ceil(Sk / page_size)]
  std::uint64_t dropout_seed = 0;
  std::uint64_t dropout_offset = 0;
  // device=cuda: i64[2] in device memory, (seed, offset), in place of the two numbers above. The
  // kernel reads them when it runs, so that replays of a CUDA graph may draw new masks.
  TensorView dropout_state = {};

  // Outputs of forward; inputs of backward.
  TensorView o = {};    // as q, with Dv
  TensorView lse = {};  // f32, see LseLayout

  // Backward only: inputs ...
  TensorView grad_o = {};    // as o
  TensorView grad_lse = {};  // as lse
  // ... and outputs, each in the shape of its tensor. Gradients of bias: any of f32, f16, bf16.
  TensorView grad_q = {}, grad_k = {}, grad_v = {};
  TensorView grad_bias = {};
  TensorView grad_sink = {};          // f32 [Hq]
  TensorView grad_alibi_slopes = {};  // f32, as alibi_slopes

  // device=cuda: the CUstream (or cudaStream_t) to run on; null is the default stream. The call
  // returns when the work is queued. All tensors lie in memory that the device reads.
  void* stream = nullptr;
};

// Checks shapes, dtypes, strides, the contents of lengths and page tables, and that no output
// overlaps itself. Reads nothing but the integer tensors; with device=cuda not even those, for they
// lie on the device: there the kernels cut lengths and page numbers to what the tensors hold.
[[nodiscard]] ATTUNE_API Status check(const Problem& problem, const Arguments& arguments);

}  // namespace attune
