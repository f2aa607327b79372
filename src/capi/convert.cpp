#include "capi/convert.h"

#include <attune/attune.h>
#include <fmt/format.h>

#include <algorithm>
#include <attune/arguments.hpp>
#include <attune/attention.hpp>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace attune::capi {
namespace {

// The numbers of the C header are those of the C++ enums.
static_assert(ATTUNE_F32 == static_cast<int>(DType::f32));
static_assert(ATTUNE_F16 == static_cast<int>(DType::f16));
static_assert(ATTUNE_BF16 == static_cast<int>(DType::bf16));
static_assert(ATTUNE_F64 == static_cast<int>(DType::f64));
static_assert(ATTUNE_BOOL == static_cast<int>(DType::boolean));
static_assert(ATTUNE_I32 == static_cast<int>(DType::i32));
static_assert(ATTUNE_I64 == static_cast<int>(DType::i64));
static_assert(ATTUNE_U8 == static_cast<int>(DType::u8));
static_assert(ATTUNE_F8E4M3 == static_cast<int>(DType::f8e4m3));
static_assert(ATTUNE_MAX_RANK == kMaxRank);
static_assert(ATTUNE_DEVICE_CPU == static_cast<int>(Device::cpu));
static_assert(ATTUNE_DEVICE_CUDA == static_cast<int>(Device::cuda));
static_assert(ATTUNE_DROPOUT_STREAM_CURAND == static_cast<int>(DropoutStream::curand));
static_assert(ATTUNE_DROPOUT_STREAM_FA2 == static_cast<int>(DropoutStream::fa2));

// Each integer of the options that stands for a choice: 0 to `last`.
Status check_choice(const char* name, std::int32_t value, std::int32_t last, const char* names) {
  if (value >= 0 && value <= last) return {};
  return {Code::invalid_argument, fmt::format("options.{} = {} is none of {}", name, value, names)};
}

Status check_choices(const attune_attention_options& options) {
  for (const Status& status : {
           check_choice("mask", options.mask, ATTUNE_MASK_CAUSAL_BOTTOM_RIGHT, "ATTUNE_MASK_..."),
           check_choice("diagonal", options.diagonal, ATTUNE_DIAGONAL_TOP_LEFT,
                        "ATTUNE_DIAGONAL_..."),
           check_choice("lse_layout", options.lse_layout, ATTUNE_LSE_PADDED32, "ATTUNE_LSE_..."),
           check_choice("device", options.device, ATTUNE_DEVICE_CUDA, "ATTUNE_DEVICE_..."),
           check_choice("dropout_stream", options.dropout_stream, ATTUNE_DROPOUT_STREAM_FA2,
                        "ATTUNE_DROPOUT_STREAM_..."),
       }) {
    if (!status.ok()) return status;
  }
  return {};
}

Mask to_mask(const attune_attention_options& options) {
  Mask mask;
  mask.causal = options.mask != ATTUNE_MASK_NONE;
  const bool top_left = mask.causal ? options.mask == ATTUNE_MASK_CAUSAL_TOP_LEFT
                                    : options.diagonal == ATTUNE_DIAGONAL_TOP_LEFT;
  mask.diagonal = top_left ? Diagonal::top_left : Diagonal::bottom_right;
  mask.offset = options.offset;
  if (options.has_window != 0) {
    mask.left = options.window_left;
    mask.right = options.window_right;
  }
  return mask;
}

// Lets a C function run the bodies of a C++ one.
Executor to_executor(attune_executor run, void* context) {
  return [run, context](int workers, const std::function<void(int)>& body) {
    run(
        context, workers,
        [](void* body_context, std::int32_t worker) {
          (*static_cast<const std::function<void(int)>*>(body_context))(worker);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  };
}

}  // namespace

TensorView to_view(const attune_tensor& tensor) {
  TensorView view;
  view.data = tensor.data;
  // A dtype that is none of ours must not turn into one of ours when it is cut to a byte.
  const bool known = tensor.dtype >= ATTUNE_F32 && tensor.dtype <= ATTUNE_F8E4M3;
  view.dtype = known ? static_cast<DType>(tensor.dtype) : static_cast<DType>(255);
  view.rank = tensor.rank;
  std::copy_n(tensor.shape, kMaxRank, view.shape.begin());
  std::copy_n(tensor.strides, kMaxRank, view.strides.begin());
  return view;
}

Arguments to_arguments(const attune_arguments& given) {
  Arguments a;
  a.q = to_view(given.q);
  a.k = to_view(given.k);
  a.v = to_view(given.v);
  a.bias = to_view(given.bias);
  a.alibi_slopes = to_view(given.alibi_slopes);
  a.sink = to_view(given.sink);
  a.key_lengths = to_view(given.key_lengths);
  a.cu_seqlens_q = to_view(given.cu_seqlens_q);
  a.cu_seqlens_k = to_view(given.cu_seqlens_k);
  a.page_table = to_view(given.page_table);
  a.dropout_seed = given.dropout_seed;
  a.dropout_offset = given.dropout_offset;
  a.o = to_view(given.o);
  a.lse = to_view(given.lse);
  a.grad_o = to_view(given.grad_o);
  a.grad_lse = to_view(given.grad_lse);
  a.grad_q = to_view(given.grad_q);
  a.grad_k = to_view(given.grad_k);
  a.grad_v = to_view(given.grad_v);
  a.grad_bias = to_view(given.grad_bias);
  a.grad_sink = to_view(given.grad_sink);
  a.grad_alibi_slopes = to_view(given.grad_alibi_slopes);
  a.dropout_state = to_view(given.dropout_state);
  a.stream = given.stream;
  a.q_scale = to_view(given.q_scale);
  a.k_scale = to_view(given.k_scale);
  a.v_scale = to_view(given.v_scale);
  return a;
}

PlanOptions to_plan_options(const attune_plan_options& given) {
  PlanOptions options;
  options.threads = given.threads;
  if (given.kernel != nullptr) options.kernel = given.kernel;
  if (given.executor != nullptr) {
    options.executor = to_executor(given.executor, given.executor_context);
  }
  if (given.has_device_index != 0) options.device_index = given.device_index;
  if (given.arch != nullptr) options.arch = given.arch;
  return options;
}

Expected<AttentionOptions> to_options(const attune_attention_options& given) {
  if (Status status = check_choices(given); !status.ok()) return status;
  AttentionOptions options;
  options.mask = to_mask(given);
  if (given.has_scale != 0) options.scale = given.scale;
  options.softcap = given.softcap;
  options.dropout = given.dropout;
  options.dropout_stream = static_cast<DropoutStream>(given.dropout_stream);
  options.dropout_seed = given.dropout_seed;
  options.dropout_offset = given.dropout_offset;
  options.q_scale = to_view(given.q_scale);
  options.k_scale = to_view(given.k_scale);
  options.v_scale = to_view(given.v_scale);
  options.bias = to_view(given.bias);
  options.alibi_slopes = to_view(given.alibi_slopes);
  options.sink = to_view(given.sink);
  options.key_lengths = to_view(given.key_lengths);
  options.cu_seqlens_q = to_view(given.cu_seqlens_q);
  options.cu_seqlens_k = to_view(given.cu_seqlens_k);
  if (given.max_seqlen_q != 0) options.max_seqlen_q = given.max_seqlen_q;
  if (given.max_seqlen_k != 0) options.max_seqlen_k = given.max_seqlen_k;
  options.page_table = to_view(given.page_table);
  options.lse = to_view(given.lse);
  options.lse_layout =
      given.lse_layout == ATTUNE_LSE_PADDED32 ? LseLayout::padded32 : LseLayout::plain;
  options.deterministic = given.deterministic != 0;
  options.device = static_cast<Device>(given.device);
  options.threads = given.threads;
  options.dropout_state = to_view(given.dropout_state);
  options.stream = given.stream;
  if (given.has_device_index != 0) options.device_index = given.device_index;
  return options;
}

BackwardTensors to_backward(const attune_backward_tensors& given) {
  BackwardTensors tensors;
  tensors.q = to_view(given.q);
  tensors.k = to_view(given.k);
  tensors.v = to_view(given.v);
  tensors.o = to_view(given.o);
  tensors.grad_o = to_view(given.grad_o);
  tensors.grad_lse = to_view(given.grad_lse);
  tensors.grad_q = to_view(given.grad_q);
  tensors.grad_k = to_view(given.grad_k);
  tensors.grad_v = to_view(given.grad_v);
  tensors.grad_bias = to_view(given.grad_bias);
  tensors.grad_sink = to_view(given.grad_sink);
  tensors.grad_alibi_slopes = to_view(given.grad_alibi_slopes);
  return tensors;
}

}  // namespace attune::capi
