// What the host hands to a CPU kernel: plain data only. This header is shared by objects compiled
// for different instruction sets, so it holds no inline function that a linker could merge.
#pragma once

#include <cstdint>

namespace attune::cpu {

enum class Element : std::int32_t { f32, f16, bf16, f8e4m3 };
inline constexpr int kElements = 4;

// A [B, S, H, D] tensor, strides in elements. Packed tensors have b_stride 0 and start at
// Sequence::q_start or k_start; paged ones use b_stride as the page stride.
struct Strided {
  char* data;
  std::int64_t b_stride, s_stride, h_stride, d_stride;
};

struct Sequence {
  std::int64_t q_start, sq, k_start, sk;
};

// What stored numbers are multiplied by, of (b, head); data null: all 1.
struct HeadScales {
  const float* data;
  std::int64_t b_stride, h_stride;
};

enum class BiasLayout : std::int32_t { none, boolean, additive };

struct BiasView {
  BiasLayout layout;
  Element element;
  const char* data;
  std::int64_t b_stride, h_stride, q_stride, k_stride;
};

// What forward and backward share: the operands of the scores and how a row's keys are limited.
struct AttentionJob {
  std::int64_t b, hq, hkv, group, sq, sk, d, dv;  // group = hq / hkv
  float scale, softcap;                           // softcap 0 = none
  // Scores need more than a positive scale and the mask: softcap, bias, ALiBi, or a scale of 0 or
  // less, which would break the running maximum of raw scores.
  bool features;
  Strided q, k, v;
  const Sequence* sequences;  // [b]

  // Mask, see attune::Mask; left and right are -1 when unbounded and fit 32 bits otherwise.
  bool causal, bottom_right;
  std::int64_t offset, left, right;

  BiasView bias;
  HeadScales q_scale, k_scale, v_scale;

  const float* alibi;  // null: none
  std::int64_t alibi_b_stride, alibi_h_stride;
  const float* sink;  // null: none
  std::int64_t sink_stride;

  bool dropout;
  std::uint32_t keep_from;  // keep iff the Philox word is at least this ...
  bool keep_none;           // ... unless even the largest word is dropped
  float keep_scale;         // 1 / (1 - p)
  bool bytes;               // dropout's stream is FA2's ...
  std::uint32_t keep_to;    // ... and a byte keeps its element up to this
  std::uint64_t seed, dropout_offset;

  const std::int32_t* page_table;  // null: not paged
  std::int64_t page_table_stride, page_table_k_stride, page_size;

  float* lse;  // null: not asked for
  std::int64_t lse_b_stride, lse_h_stride, lse_stride;
  std::int64_t lse_padded;  // rows per sequence including padding, 0: none
  bool lse_packed;          // rows start at q_start

  std::int64_t key_block;  // keys a step, a multiple of 32
};

struct ForwardJob : AttentionJob {
  Strided o;
  std::int64_t panels_per_task, row_blocks;  // a task is `panels_per_task` panels of query rows
  std::int64_t splits;                       // key ranges computed apart and merged
  std::int64_t split_keys;                   // keys per split, a multiple of key_block
  float* partials;                           // splits > 1: see forward.h
  // When several tasks share a head's keys, K and V are packed once: [b][hkv][key_blocks], each
  // block packed_k_size then packed_v_size floats; null: each task packs its own.
  float* packed;
  std::uint8_t* packed_bad;  // V holds NaN or Inf
  std::int64_t key_blocks;
};

struct BackwardJob : AttentionJob {
  Strided o, grad_o, grad_q, grad_k, grad_v;
  const float* grad_lse;  // in the layout of lse, null: none
  std::int64_t grad_lse_b_stride, grad_lse_h_stride, grad_lse_stride;

  std::int64_t key_blocks;            // most blocks of a sequence
  std::int64_t steps;                 // most query steps of a sequence
  std::int64_t panels;                // most panels of a sequence (rows = group * sq)
  bool serial_b, serial_h, serial_k;  // dimensions that one task walks alone, in order

  // Shared workspace; all arrays are [b][hkv][...].
  char *q_columns, *q_rows, *o_columns, *o_rows;  // packed Q and dO, see backward.cpp
  float* grad_q_sum;                              // [panels][d][panel]
  // [panels * panel]; the LSE in the units of scores: powers of two, or of e with features. A row
  // without keys has +inf there, which makes each of its probabilities 0.
  float *row_lse, *delta;
  std::uint8_t* bad_rows;  // [panels]: Q or dO holds NaN or Inf
  std::int32_t* turns;     // [steps]: how many key blocks have added
  double* alibi_parts;     // [key_blocks][b][hq], null: none
  float* page_sum;         // paged: grad_k then grad_v, f32 [hkv][pages * page_size][d], [dv]
  std::int64_t pages;

  float* grad_bias;  // f32, null: none
  std::int64_t grad_bias_b_stride, grad_bias_h_stride, grad_bias_q_stride, grad_bias_k_stride;
  float* grad_sink;  // [hq], null: none
  std::int64_t grad_sink_stride;
};

// Sizes that the host needs in order to lay out workspaces; bytes unless said.
struct KernelSizes {
  std::int64_t panel;         // query rows a panel
  std::int64_t panel_q;       // packed Q of one panel (columns), also dO with dv
  std::int64_t panel_q_rows;  // packed Q rows of one panel (backward)
  std::int64_t panel_o, panel_o_rows;
  std::int64_t scratch;  // per thread
  std::int64_t partial;  // floats of one panel's partial result (forward splits)
  std::int64_t packed;   // floats of one packed key block
  std::int64_t step_panels;
};

// One kernel compiled for one instruction set.
struct ForwardKernel {
  void (*sizes)(const ForwardJob& job, KernelSizes* sizes);
  void (*pack)(const ForwardJob& job, std::int64_t task, char* scratch);  // b * hkv * key_blocks
  void (*task)(const ForwardJob& job, std::int64_t task, char* scratch);
  void (*merge)(const ForwardJob& job, std::int64_t task, char* scratch);  // after all tasks
};

struct BackwardKernel {
  void (*sizes)(const BackwardJob& job, KernelSizes* sizes);
  void (*prepare)(const BackwardJob& job, std::int64_t task, char* scratch);  // b * hkv * panels
  void (*task)(const BackwardJob& job, std::int64_t task, char* scratch);
  void (*finish)(const BackwardJob& job, std::int64_t task, char* scratch);  // b * hkv * panels
};

// What each instruction set offers; null where a set has nothing of its own for an element type.
struct KernelSet {
  ForwardKernel forward[kElements];  // by Element
  BackwardKernel backward[kElements];
};

namespace generic {
const KernelSet* kernels();
}
namespace avx2 {
const KernelSet* kernels();
}
namespace avx512 {
const KernelSet* kernels();
}
namespace avx512bf16 {
const KernelSet* kernels();
}
namespace amx {
const KernelSet* kernels();
}

}  // namespace attune::cpu
