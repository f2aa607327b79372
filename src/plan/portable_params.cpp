#include "plan/portable_params.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "plan/forward_sizes.h"
#include "plan/grid.h"
#include "problem/dropout.h"
#include "problem/shapes.h"

namespace attune {

namespace {

using kernel::ForwardParams;

// Beyond this every bound of a mask acts like none: positions and lengths stay below 2^31.
constexpr kernel::i64 kFar = kernel::i64{1} << 41;

kernel::i64 cut(std::int64_t value) { return std::clamp<std::int64_t>(value, -kFar, kFar); }

// Attended keys: [diagonal + low, diagonal + high). Offsets and window sides reach 2^63: a sum that
// overflows is far.
void set_mask(const Mask& mask, ForwardParams& p) {
  std::int64_t low = 0, high = 0;
  p.mask_low = -kFar;
  if (mask.left >= 0 && !__builtin_sub_overflow(mask.offset, mask.left, &low))
    p.mask_low = cut(low);
  constexpr std::int64_t kNoSide = std::numeric_limits<std::int64_t>::max();
  std::int64_t right = mask.right < 0 || mask.right == kNoSide ? kNoSide : mask.right + 1;
  if (mask.causal) right = std::min<std::int64_t>(right, 1);
  p.mask_high = kFar;
  if (right != kNoSide && !__builtin_add_overflow(mask.offset, right, &high)) {
    p.mask_high = cut(high);
  }
  p.bottom_right = mask.diagonal == Diagonal::bottom_right ? 1 : 0;
}

void set_dropout(const Problem& problem, kernel::Dropout& dropout) {
  const DropoutThreshold threshold = dropout_threshold(problem.dropout);
  dropout.keep_from = threshold.keep_from;
  dropout.keep_none = threshold.keep_none ? 1 : 0;
  dropout.keep_scale = static_cast<float>(1.0 / (1.0 - problem.dropout));
  dropout.bytes = problem.dropout_stream == DropoutStream::fa2 ? 1 : 0;
  dropout.keep_to = largest_kept_byte(problem.dropout);
}

kernel::BiasKind kind_of(const Problem& problem) {
  switch (problem.bias.kind) {
    case BiasKind::boolean:
      return kernel::BiasKind::boolean;
    case BiasKind::additive:
      return kernel::BiasKind::additive;
    case BiasKind::none:
      break;
  }
  return kernel::BiasKind::none;
}

kernel::Indices indices(const TensorView& view) {
  return {static_cast<const int*>(view.data), view.strides[0], view.strides[1]};
}

}  // namespace

int element_of(DType dtype) {
  if (dtype == DType::f16) return static_cast<int>(kernel::Element::f16);
  return static_cast<int>(dtype == DType::bf16 ? kernel::Element::bf16 : kernel::Element::f32);
}

bool writes_nothing(const Problem& problem) {
  for (const TensorSpec& tensor : tensors_of(problem)) {
    if (tensor.role == Role::output && row_major_view(tensor).elements() > 0) return false;
  }
  return true;
}

bool no_sequence(const Problem& problem) { return problem.b == 0; }

std::int64_t fill_half_the_cache(std::int64_t bytes, const DeviceFacts& device) {
  return things_in_half_the_cache(bytes, device.l2_bytes);
}

ForwardParams params_of(const Problem& problem) {
  ForwardParams p{};
  const bool empty = no_sequence(problem);
  p.b = empty ? 1 : static_cast<int>(problem.b);
  p.hq = static_cast<int>(problem.hq);
  p.hkv = static_cast<int>(problem.hkv);
  p.group = static_cast<int>(problem.hq / problem.hkv);
  p.sq = empty ? 0 : static_cast<int>(problem.sq);
  // Without a page there is no key that a table could lead to.
  const bool no_keys = empty || (problem.page_size > 0 && problem.pages == 0);
  p.sk = no_keys ? 0 : static_cast<int>(problem.sk);
  p.d = static_cast<int>(problem.d);
  p.dv = static_cast<int>(problem.dv);
  p.total_q = static_cast<int>(problem.total_q);
  p.total_k = static_cast<int>(problem.total_k);
  p.scale = static_cast<float>(problem.effective_scale());
  p.softcap = static_cast<float>(problem.softcap);
  constexpr double kLog2E = 1.4426950408889634;
  p.scale_log2 = static_cast<float>(problem.effective_scale() * kLog2E);
  set_mask(problem.mask, p);
  p.page_size = static_cast<int>(problem.page_size);
  p.pages = static_cast<int>(problem.pages);
  p.bias.kind = kind_of(problem);
  p.bias.element = element_of(problem.bias.dtype);
  set_dropout(problem, p.dropout);
  if (problem.lse == LseLayout::padded32 && !empty) {
    p.lse.padded = static_cast<int>(ceil_div(problem.sq, 32) * 32);
  }
  p.lse.packed = problem.packed_q && problem.lse == LseLayout::plain ? 1 : 0;
  return p;
}

kernel::Operand operand(const TensorView& view, bool packed) {
  return {view.data, packed ? 0 : view.strides[0], view.strides[1], view.strides[2],
          view.strides[3]};
}

kernel::LseOutput lse_of(const TensorView& view, const kernel::LseOutput& layout) {
  const bool packed = layout.packed != 0;
  return {static_cast<float*>(view.data),
          packed ? 0 : view.strides[0],
          view.strides[packed ? 0 : 1],
          view.strides[packed ? 1 : 2],
          layout.padded,
          layout.packed};
}

void take_tensors(const Problem& problem, const Arguments& arguments, ForwardParams& p) {
  p.q = operand(arguments.q, problem.packed_q);
  p.k = operand(arguments.k, problem.packed_k);
  p.v = operand(arguments.v, problem.packed_k);
  p.o = operand(arguments.o, problem.packed_q);

  if (problem.key_lengths) p.key_lengths = indices(arguments.key_lengths);
  if (problem.packed_q) p.cu_seqlens_q = indices(arguments.cu_seqlens_q);
  if (problem.packed_k) p.cu_seqlens_k = indices(arguments.cu_seqlens_k);
  if (problem.page_size > 0) p.page_table = indices(arguments.page_table);
  if (no_sequence(problem)) {
    // One entry, 0: as both the start and the end of the sequence that the kernel sees.
    p.cu_seqlens_q.stride = 0;
    p.cu_seqlens_k.stride = 0;
    p.key_lengths = {};
  }

  if (problem.bias.kind != BiasKind::none) {
    const TensorView& bias = arguments.bias;
    p.bias.data = bias.data;
    p.bias.b_stride = problem.bias.broadcast_b ? 0 : bias.strides[0];
    p.bias.h_stride = problem.bias.broadcast_h ? 0 : bias.strides[1];
    p.bias.q_stride = problem.bias.broadcast_q ? 0 : bias.strides[2];
    p.bias.k_stride = problem.bias.broadcast_k ? 0 : bias.strides[3];
  }
  // Without a sequence there is no slope of one either.
  if (problem.alibi != PerHead::none && !no_sequence(problem)) {
    const bool per_batch = problem.alibi == PerHead::batch_head;
    p.alibi = static_cast<const float*>(arguments.alibi_slopes.data);
    p.alibi_b_stride = per_batch ? arguments.alibi_slopes.strides[0] : 0;
    p.alibi_h_stride = arguments.alibi_slopes.strides[per_batch ? 1 : 0];
  }
  if (problem.sink) {
    p.sink = static_cast<const float*>(arguments.sink.data);
    p.sink_stride = arguments.sink.strides[0];
  }
  p.dropout.seed = arguments.dropout_seed;
  p.dropout.offset = arguments.dropout_offset;
  p.dropout.state = static_cast<const kernel::u64*>(arguments.dropout_state.data);

  if (problem.lse != LseLayout::none) {
    p.lse = lse_of(arguments.lse, p.lse);
  }
}

}  // namespace attune
