#include "plan/forward_portable.h"

#include <attune/kernel/forward_portable_layout.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "problem/dropout.h"
#include "problem/shapes.h"

namespace attune {

namespace {

using kernel::ForwardParams;

// Beyond this every bound of a mask acts like none: positions and lengths stay below 2^31.
constexpr kernel::i64 kFar = kernel::i64{1} << 41;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a / b + (a % b > 0 ? 1 : 0); }

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

void set_dropout(double probability, kernel::Dropout& dropout) {
  const DropoutThreshold threshold = dropout_threshold(probability);
  dropout.keep_from = threshold.keep_from;
  dropout.keep_none = threshold.keep_none ? 1 : 0;
  dropout.keep_scale = static_cast<float>(1.0 / (1.0 - probability));
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

// Tokens after the last sequence's end belong to no sequence; the tiles of the last one write their
// o and LSE. Without any sequence, the kernel sees one that is empty.
bool tail_alone(const Problem& problem) { return problem.b == 0 && problem.packed_q; }

// (sequence, head) pairs whose keys and values fill half of the L2 cache, where they stay while
// all of their query blocks pass. Heads that share keys count once.
int heads_a_slice(const Problem& problem, const DeviceFacts& device) {
  constexpr std::int64_t kSmallestCache = std::int64_t{2} << 20;
  const std::int64_t cache = std::max(device.l2_bytes, kSmallestCache) / 2;
  const auto size = static_cast<std::int64_t>(size_of(problem.dtype));
  const std::int64_t bytes =
      std::max<std::int64_t>(1, problem.sk * (problem.d + problem.dv) * size);
  const std::int64_t shared = problem.hq / problem.hkv;
  const std::int64_t keys = std::max<std::int64_t>(1, cache / bytes);
  const std::int64_t all = std::max<std::int64_t>(1, problem.b) * problem.hq;
  const std::int64_t most = std::min<std::int64_t>(all, std::numeric_limits<int>::max());
  return static_cast<int>(keys > most / shared ? most : keys * shared);
}

ForwardParams params_of(const Problem& problem) {
  ForwardParams p{};
  const bool tail = tail_alone(problem);
  p.b = tail ? 1 : static_cast<int>(problem.b);
  p.hq = static_cast<int>(problem.hq);
  p.hkv = static_cast<int>(problem.hkv);
  p.group = static_cast<int>(problem.hq / problem.hkv);
  p.sq = tail ? 0 : static_cast<int>(problem.sq);
  // Without a page there is no key that a table could lead to.
  const bool no_keys = tail || (problem.page_size > 0 && problem.pages == 0);
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
  set_dropout(problem.dropout, p.dropout);
  if (problem.lse == LseLayout::padded32 && !tail) {
    p.lse.padded = static_cast<int>(ceil_div(problem.sq, 32) * 32);
  }
  p.lse.packed = problem.packed_q && problem.lse == LseLayout::plain ? 1 : 0;
  return p;
}

kernel::Operand operand(const TensorView& view, bool packed) {
  return {view.data, packed ? 0 : view.strides[0], view.strides[1], view.strides[2],
          view.strides[3]};
}

kernel::Indices indices(const TensorView& view) {
  return {static_cast<const int*>(view.data), view.strides[0], view.strides[1]};
}

}  // namespace

Expected<Grid> fold(std::int64_t tiles) {
  constexpr std::int64_t kMostX = 2147483647;
  constexpr std::int64_t kMostY = 65535;
  const std::int64_t y = std::max<std::int64_t>(1, ceil_div(tiles, kMostX));
  if (y > kMostY) {
    return Status{Code::unsupported,
                  fmt::format("the problem has {} tiles; a grid has at most {} * {} blocks", tiles,
                              kMostX, kMostY)};
  }
  return Grid{ceil_div(tiles, y), y};
}

Expected<PortablePlan> plan_forward_portable(const Problem& problem, const KernelSpec& spec,
                                             const DeviceFacts& device) {
  PortablePlan plan;
  plan.spec = spec.portable;
  plan.threads = kernel::threads_of(spec.portable);
  plan.shared_bytes = kernel::forward_portable_shared_bytes(spec.portable);
  plan.params = params_of(problem);
  plan.nothing = writes_nothing(problem);
  if (plan.nothing) return plan;

  ForwardParams& p = plan.params;
  const std::int64_t rows = std::max(p.sq, p.lse.padded);
  // Even without rows: tokens of no sequence are written too.
  p.query_blocks =
      static_cast<int>(std::max<std::int64_t>(1, ceil_div(rows, spec.portable.queries)));
  p.tiles = static_cast<kernel::i64>(p.query_blocks) * p.hq * p.b;
  p.heads_a_slice = heads_a_slice(problem, device);
  const Expected<Grid> grid = fold(p.tiles);
  if (!grid.ok()) return grid.status();
  plan.grid = *grid;
  if (spec.portable.head_dim == 0) {
    std::int64_t bytes = 0;
    const std::int64_t floats = kernel::wide_accumulator_floats(spec.portable, p.dv);
    if (__builtin_mul_overflow(4 * floats, p.tiles, &bytes)) {
      return Status{Code::unsupported,
                    fmt::format("the workspace of {} tiles of {} floats is larger than 2^63 bytes",
                                p.tiles, floats)};
    }
    plan.workspace_bytes = static_cast<std::size_t>(bytes);
  }
  return plan;
}

kernel::ForwardParams complete(const PortablePlan& plan, const Problem& problem,
                               const Arguments& arguments, void* workspace) {
  ForwardParams p = plan.params;
  p.q = operand(arguments.q, problem.packed_q);
  p.k = operand(arguments.k, problem.packed_k);
  p.v = operand(arguments.v, problem.packed_k);
  p.o = operand(arguments.o, problem.packed_q);

  if (problem.key_lengths) p.key_lengths = indices(arguments.key_lengths);
  if (problem.packed_q) p.cu_seqlens_q = indices(arguments.cu_seqlens_q);
  if (problem.packed_k) p.cu_seqlens_k = indices(arguments.cu_seqlens_k);
  if (problem.page_size > 0) p.page_table = indices(arguments.page_table);
  if (tail_alone(problem)) {
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
  if (problem.alibi != PerHead::none) {
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
  fill_round_keys(p.dropout);
  p.dropout.state = static_cast<const kernel::u64*>(arguments.dropout_state.data);

  if (problem.lse != LseLayout::none) {
    const TensorView& lse = arguments.lse;
    const bool packed = p.lse.packed != 0;
    p.lse.data = static_cast<float*>(lse.data);
    p.lse.b_stride = packed ? 0 : lse.strides[0];
    p.lse.h_stride = lse.strides[packed ? 0 : 1];
    p.lse.s_stride = lse.strides[packed ? 1 : 2];
  }
  p.accumulator = plan.workspace_bytes > 0 ? static_cast<float*>(workspace) : nullptr;
  return p;
}

std::string describe(const PortablePlan& plan) {
  if (plan.nothing) return "  grid       none: no result has an element\n";
  const kernel::ForwardParams& p = plan.params;
  return fmt::format(
      "  tile       {} queries x {} keys, {} threads, {} bytes of shared memory\n"
      "  grid       {} tiles as {} x {}: {} query block{} of {} head{} of {} sequence{}; {} "
      "heads share the L2\n"
      "  workspace  {} bytes{}\n",
      plan.spec.queries, plan.spec.keys, plan.threads, plan.shared_bytes, p.tiles, plan.grid.x,
      plan.grid.y, p.query_blocks, p.query_blocks == 1 ? "" : "s", p.hq, p.hq == 1 ? "" : "s", p.b,
      p.b == 1 ? "" : "s", p.heads_a_slice, plan.workspace_bytes,
      plan.workspace_bytes > 0 ? ": o in float32, as the head dim has no bound" : "");
}

}  // namespace attune
