// attention() and attention_backward(): one call from tensors to results. They build the Problem
// from the views, make a Plan (or find it among the last 64) and run it.
#pragma once

#include <attune/export.h>

#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

namespace attune {

// Everything beyond q, k, v and o. Leave out what is not needed:
//   attention(q, k, v, o, {.mask = {.causal = true}, .dropout = 0.1, .dropout_seed = 42});
// A backward pass takes the options of its forward pass.
struct AttentionOptions {
  Mask mask = {};
  std::optional<double> scale = {};  // default 1 / sqrt(D)
  double softcap = 0;
  double dropout = 0;
  DropoutStream dropout_stream = DropoutStream::curand;  // without dropout: not looked at
  std::uint64_t dropout_seed = 0;
  std::uint64_t dropout_offset = 0;

  // q, k and v of f8e4m3: f32 [B, Hq], [B, Hkv] and [B, Hkv], all three or none. A number is what is
  // stored times the scale of its sequence and head.
  TensorView q_scale = {};
  TensorView k_scale = {};
  TensorView v_scale = {};

  // bool, or f32, f16, bf16 to add: [B, Hq, Sq, Sk], any of them 1 to broadcast it.
  TensorView bias = {};
  TensorView alibi_slopes = {};  // f32 [Hq] or [B, Hq]
  TensorView sink = {};          // f32 [Hq]

  TensorView key_lengths = {};  // i32 [B]
  // i32 [B + 1]: q and o, k and v then are [1, total, H, D]. The longest lengths belong to them:
  // the Plan and the numbering of dropout depend on them, not on the contents.
  TensorView cu_seqlens_q = {};
  TensorView cu_seqlens_k = {};
  std::optional<std::int64_t> max_seqlen_q = {};
  std::optional<std::int64_t> max_seqlen_k = {};
  // i32 [B, columns]: k and v then are [pages, page_size, Hkv, D]. Sk is max_seqlen_k, or all that
  // the columns reach; columns past it are not read.
  TensorView page_table = {};

  // f32 in lse_layout. Forward writes it when given; backward reads it and must have it.
  TensorView lse = {};
  LseLayout lse_layout = LseLayout::plain;

  bool deterministic = false;
  // automatic is the CPU: the pointers may be anyone's, and only the caller knows.
  Device device = Device::automatic;
  int threads = 0;  // 0: every core this process may use

  // device = Device::cuda alone, as in Arguments and PlanOptions.
  TensorView dropout_state = {};
  void* stream = nullptr;
  int device_index = -1;

  // Called at most once a call, when the plan needs scratch memory: gives that many bytes, any
  // alignment (device = Device::cuda: of the device, for work on `stream`), or nullptr when there
  // are none. They stay the caller's, who keeps them until the work is done. Without it, the call
  // allocates and frees them itself.
  std::function<void*(std::size_t bytes)> allocate_workspace = {};
};

// q [B, Sq, Hq, D], k [B, Sk, Hkv, D], v [B, Sk, Hkv, Dv] -> o [B, Sq, Hq, Dv], all of one dtype
// (f32, f16, bf16; or q, k and v of f8e4m3 and o of bf16) and with any strides. Writes o, and
// options.lse when given. A refused call writes nothing. Safe to call from several threads.
[[nodiscard]] ATTUNE_API Status attention(const TensorView& q, const TensorView& k,
                                          const TensorView& v, const TensorView& o,
                                          const AttentionOptions& options = {});

// The Problem that attention() makes of its arguments, or attention_backward() of those and the
// gradients that it is asked for; say explain() or make_plan() of it. o is only looked at for its
// strides: contiguous without one. No data is read.
struct WantedGradients {
  bool lse = false;  // one that flows in
  bool bias = false, sink = false, alibi_slopes = false;
};
[[nodiscard]] ATTUNE_API Expected<Problem> problem_of(
    const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& o,
    const AttentionOptions& options = {}, const std::optional<WantedGradients>& backward = {});

// The tensors of a backward pass, in the shapes of their forward namesakes.
struct BackwardTensors {
  TensorView q = {}, k = {}, v = {}, o = {};
  TensorView grad_o = {};
  TensorView grad_lse = {};  // optional: a gradient of the LSE that flows in
  TensorView grad_q = {}, grad_k = {}, grad_v = {};  // written
  // Written when given.
  TensorView grad_bias = {};  // f32, f16 or bf16
  TensorView grad_sink = {};
  TensorView grad_alibi_slopes = {};
};

// Every gradient for which `tensors` has a place. options.lse is the forward pass's.
[[nodiscard]] ATTUNE_API Status attention_backward(const BackwardTensors& tensors,
                                                   const AttentionOptions& options);

}  // namespace attune
