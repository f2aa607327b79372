#include "cpu/job_setup.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "problem/dropout.h"
#include "problem/lengths.h"

namespace attune::cpu {

const KernelSet* kernel_set(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::generic:
      return generic::kernels();
    case Isa::avx2:
      return avx2::kernels();
    case Isa::avx512:
      return avx512::kernels();
    case Isa::avx512bf16:
      return avx512bf16::kernels();
    case Isa::amx:
      return amx::kernels();
  }
#endif
  (void)isa;
  return generic::kernels();
}

Element element_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return Element::f16;
    case DType::bf16:
      return Element::bf16;
    case DType::f8e4m3:
      return Element::f8e4m3;
    default:
      return Element::f32;
  }
}

namespace {

// Keys a block: P of a panel stays in the L1 cache, K and V beside the panels in the L2. Tiles take
// longer blocks, whose products load and store O less often. From the Problem and the kernel alone:
// it decides where sums are cut, hence the bits of the result. Measured: docs/kernels/cpu.md.
std::int64_t choose_key_block(const Problem& problem, Isa isa) {
  constexpr std::int64_t kBlockFloats = 64 * 1024;
  const std::int64_t most = isa == Isa::amx && problem.dtype == DType::bf16 ? 192 : 128;
  const std::int64_t width = std::max<std::int64_t>(1, problem.d + problem.dv);
  return std::clamp<std::int64_t>(kBlockFloats / width / 32 * 32, 32, most);
}

// Window sides and offsets beyond every key act like "unbounded" or "nothing" alike when cut here,
// and then fit the arithmetic of the kernels.
std::int64_t cut(std::int64_t value) {
  constexpr std::int64_t kFar = std::int64_t{1} << 40;
  return std::clamp(value, -kFar, kFar);
}

BiasLayout bias_layout(const Problem& problem) {
  switch (problem.bias.kind) {
    case BiasKind::boolean:
      return BiasLayout::boolean;
    case BiasKind::additive:
      return BiasLayout::additive;
    case BiasKind::none:
      break;
  }
  return BiasLayout::none;
}

HeadScales head_scales(const TensorView& view) {
  return {static_cast<const float*>(view.data), view.strides[0], view.strides[1]};
}

}  // namespace

void fill_from_problem(const Problem& problem, Isa isa, AttentionJob* job) {
  job->b = problem.b;
  job->hq = problem.hq;
  job->hkv = problem.hkv;
  job->group = problem.hq / problem.hkv;
  job->sq = problem.sq;
  job->sk = problem.sk;
  job->d = problem.d;
  job->dv = problem.dv;
  job->scale = static_cast<float>(problem.effective_scale());
  job->softcap = static_cast<float>(problem.softcap);
  job->features = problem.softcap > 0 || problem.bias.kind != BiasKind::none ||
                  problem.alibi != PerHead::none || !(job->scale > 0);
  job->bias.layout = bias_layout(problem);
  job->causal = problem.mask.causal;
  job->bottom_right = problem.mask.diagonal == Diagonal::bottom_right;
  job->offset = cut(problem.mask.offset);
  // Twice as far as the offset: a window side this large reaches every key from any diagonal.
  job->left = problem.mask.left < 0 ? -1 : std::min(problem.mask.left, std::int64_t{1} << 42);
  job->right = problem.mask.right < 0 ? -1 : std::min(problem.mask.right, std::int64_t{1} << 42);
  job->dropout = problem.dropout > 0;
  const DropoutThreshold threshold = dropout_threshold(problem.dropout);
  job->keep_from = threshold.keep_from;
  job->keep_none = threshold.keep_none;
  job->bytes = problem.dropout_stream == DropoutStream::fa2;
  job->keep_to = largest_kept_byte(problem.dropout);
  job->keep_scale = static_cast<float>(1.0 / (1.0 - problem.dropout));
  job->page_size = problem.page_size;
  job->key_block = choose_key_block(problem, isa);
}

Strided strided(const TensorView& view, bool packed) {
  return {static_cast<char*>(view.data), packed ? 0 : view.strides[0], view.strides[1],
          view.strides[2], view.strides[3]};
}

void fill_from_arguments(const Problem& problem, const Arguments& arguments, Sequence* sequences,
                         AttentionJob* job) {
  for (std::int64_t b = 0; b < problem.b; ++b) {
    const attune::Sequence s = attune::sequence(problem, arguments, b);
    sequences[b] = {s.q_start, s.sq, s.k_start, s.sk};
  }
  job->sequences = sequences;
  job->q = strided(arguments.q, problem.packed_q);
  job->k = strided(arguments.k, problem.packed_k);
  job->v = strided(arguments.v, problem.packed_k);

  job->bias = {};
  if (problem.bias.kind != BiasKind::none) {
    const TensorView& bias = arguments.bias;
    job->bias.layout = bias_layout(problem);
    job->bias.element = element_of(bias.dtype);
    job->bias.data = static_cast<const char*>(bias.data);
    job->bias.b_stride = problem.bias.broadcast_b ? 0 : bias.strides[0];
    job->bias.h_stride = problem.bias.broadcast_h ? 0 : bias.strides[1];
    job->bias.q_stride = problem.bias.broadcast_q ? 0 : bias.strides[2];
    job->bias.k_stride = problem.bias.broadcast_k ? 0 : bias.strides[3];
  }
  job->q_scale = head_scales(arguments.q_scale);
  job->k_scale = head_scales(arguments.k_scale);
  job->v_scale = head_scales(arguments.v_scale);
  job->alibi = nullptr;
  if (problem.alibi != PerHead::none) {
    const bool per_batch = problem.alibi == PerHead::batch_head;
    job->alibi = static_cast<const float*>(arguments.alibi_slopes.data);
    job->alibi_b_stride = per_batch ? arguments.alibi_slopes.strides[0] : 0;
    job->alibi_h_stride = arguments.alibi_slopes.strides[per_batch ? 1 : 0];
  }
  job->sink = problem.sink ? static_cast<const float*>(arguments.sink.data) : nullptr;
  job->sink_stride = arguments.sink.strides[0];
  job->seed = arguments.dropout_seed;
  job->dropout_offset = arguments.dropout_offset;

  job->page_table = nullptr;
  if (problem.page_size > 0) {
    job->page_table = static_cast<const std::int32_t*>(arguments.page_table.data);
    job->page_table_stride = arguments.page_table.strides[0];
    job->page_table_k_stride = arguments.page_table.strides[1];
  }

  job->lse = nullptr;
  job->lse_packed = problem.packed_q && problem.lse == LseLayout::plain;
  if (problem.lse != LseLayout::none) {
    const TensorView& lse = arguments.lse;
    job->lse = static_cast<float*>(lse.data);
    job->lse_b_stride = job->lse_packed ? 0 : lse.strides[0];
    job->lse_h_stride = lse.strides[job->lse_packed ? 0 : 1];
    job->lse_stride = lse.strides[job->lse_packed ? 1 : 2];
  }
}

void fill_rows(const TensorView& view, std::int64_t first, std::int64_t last, float value) {
  const std::size_t bytes = size_of(view.dtype);
  for (std::int64_t a = 0; a < view.shape[0]; ++a) {
    for (std::int64_t s = first; s < last; ++s) {
      for (std::int64_t h = 0; h < view.shape[2]; ++h) {
        for (std::int64_t d = 0; d < view.shape[3]; ++d) {
          char* at = static_cast<char*>(view.data) +
                     static_cast<std::int64_t>(bytes) * (a * view.strides[0] + s * view.strides[1] +
                                                         h * view.strides[2] + d * view.strides[3]);
          // Only 0 is ever asked of 16-bit tensors, and 0 is all bits clear in each of them.
          std::memset(at, 0, bytes);
          if (view.dtype == DType::f32) std::memcpy(at, &value, sizeof value);
        }
      }
    }
  }
}

void fill_unowned_tokens(const Problem& problem, const TensorView& view,
                         const Sequence* sequences) {
  if (!problem.packed_q) return;
  const Sequence last = problem.b > 0 ? sequences[problem.b - 1] : Sequence{};
  fill_rows(view, last.q_start + last.sq, problem.total_q, 0.0f);
}

void fill_unowned_lse(const Problem& problem, const TensorView& lse, const Sequence* sequences) {
  auto* data = static_cast<float*>(lse.data);
  if (problem.lse == LseLayout::padded32) {
    for (std::int64_t b = 0; b < problem.b; ++b) {
      for (std::int64_t h = 0; h < problem.hq; ++h) {
        for (std::int64_t i = sequences[b].sq; i < lse.shape[2]; ++i) {
          data[b * lse.strides[0] + h * lse.strides[1] + i * lse.strides[2]] = INFINITY;
        }
      }
    }
  } else if (problem.lse == LseLayout::plain && problem.packed_q) {
    const Sequence last = problem.b > 0 ? sequences[problem.b - 1] : Sequence{};
    for (std::int64_t h = 0; h < problem.hq; ++h) {
      for (std::int64_t i = last.q_start + last.sq; i < problem.total_q; ++i) {
        data[h * lse.strides[0] + i * lse.strides[1]] = -INFINITY;
      }
    }
  }
}

}  // namespace attune::cpu
