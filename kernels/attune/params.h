// What the host hands to an attention kernel: plain data, the same bytes on both sides. Lengths and
// counts fit 32 bits (attune::validate holds that); offsets into tensors are 64-bit.
#pragma once

namespace attune::kernel {

using i64 = long long;
using u64 = unsigned long long;
using u32 = unsigned int;

// [B, S, H, D], strides in elements. Packed tensors have b_stride 0; paged ones use it as the
// stride of a page.
struct Operand {
  void* data;
  i64 b_stride, s_stride, h_stride, d_stride;
};

// An i32 tensor of at most two dimensions; null: not there.
struct Indices {
  const int* data;
  i64 stride, inner_stride;
};

enum class BiasKind : int { none, boolean, additive };

struct BiasOperand {
  const void* data;
  i64 b_stride, h_stride, q_stride, k_stride;  // 0 where broadcast
  BiasKind kind;
  int element;  // as Element, when additive
};

struct Dropout {
  u64 seed, offset;
  const u64* state;  // device memory (seed, offset), read at run time instead; null: not used
  u32 keep_from;     // keep iff the Philox word is at least this ...
  int keep_none;     // ... unless even the largest word is dropped; keep_from is 0 then
  float keep_scale;  // 1 / (1 - p); 1 without dropout
  int bytes;         // FA2's stream: a byte an element, not a word ...
  u32 keep_to;       // ... kept iff the byte is at most this
};

struct LseOutput {
  float* data;  // null: not asked for
  i64 b_stride, h_stride, s_stride;
  int padded;  // rows a sequence including padding, which get +inf; 0: none
  int packed;  // rows start at the sequence's first token
};

struct ForwardParams {
  Operand q, k, v, o;
  int b, hq, hkv, group;  // group = hq / hkv
  int sq, sk, d, dv;      // packed: the longest lengths
  int total_q, total_k;   // packed: tokens of the tensor
  float scale, softcap;   // softcap 0: none
  float scale_log2;       // scale * log2(e): raw product -> power of two

  // Query i attends to keys [i + diagonal + mask_low, i + diagonal + mask_high), cut to [0, sk);
  // diagonal = sk - sq of the sequence when bottom_right, else 0. Sides without a bound lie past 2^40.
  i64 mask_low, mask_high;
  int bottom_right;

  int page_size, pages;
  int pack_shift;  // of kernels that pack: 2^pack_shift query heads of a group are rows of a tile
  Indices key_lengths, cu_seqlens_q, cu_seqlens_k, page_table;
  BiasOperand bias;
  const float* alibi;  // null: none
  i64 alibi_b_stride, alibi_h_stride;
  const float* sink;  // null: none
  i64 sink_stride;
  Dropout dropout;
  LseOutput lse;

  // A tile is one block of queries of one head of one sequence; tiles lie in the grid as x + y * grid.x.
  int query_blocks;  // of the longest sequence (or of the padded LSE or the packed tail)
  // (sequence, head) pairs whose tiles run together; their K and V share the L2. Backward: (sequence, key
  // head) pairs, whose Q and dO do.
  int heads_a_slice;
  i64 tiles;           // query_blocks * hq * b
  float* accumulator;  // unbounded head dim: [tiles][queries][dv] floats
};

// CUtensorMap of the driver's API, made by it: what the copy engine knows of a tensor.
struct alignas(128) TensorMap {
  u64 words[16];
};

// Of f8e4m3: what the numbers of a sequence's head are multiplied by, [sequences][heads]. Null: 1.
struct HeadScales {
  const float* data;
  i64 b_stride, h_stride;
};

// Boxes of q, k and v are [128 bytes of columns][1 head][rows of a tile][1 sequence]; of packed tensors all tokens
// are one sequence, of paged ones a sequence is a page, and a tile has as many boxes as it may lie in pages.
struct HopperParams {
  ForwardParams f;
  u32 pairs;  // of tiles, an early and a late one of a head, that go together; 0: tiles go one by one
  int box_keys;  // rows of a box of k and v
  // Of kernels with mates: whether these have two heads' tiles, and f.hq counts heads by twos; or two tiles of a head,
  // and f.query_blocks does. So does f.tiles.
  int mates_are_heads;
  TensorMap q, k, v;
  TensorMap bias;  // of kernels that copy one: [64 keys][1 head][queries of a tile][1 sequence]
  HeadScales q_scale, k_scale, v_scale;
};

// What backward needs of a row of queries. lse: natural, +inf where nothing is attended to, so that P is
// 0 there. delta: the sum of dO o O, less the gradient of the LSE.
struct RowFacts {
  float lse, delta;
};

// A gradient of the shape of the bias, [b or 1, hq or 1, sq or 1, sk or 1], by its own strides.
struct BiasGradient {
  void* data;  // null: not asked for
  i64 b_stride, h_stride, q_stride, k_stride;
  int element;                     // as Element
  int one_b, one_h, one_q, one_k;  // whether that dimension is summed over
  // What the others extend over. f.sq and f.sk are 0 where there is no sequence, and the gradient is not
  // empty even then when it is summed over the sequences.
  int sq, sk;
  // Tiles of queries x keys, [b or 1][hq or 1][query blocks or 1][key blocks or 1]. What a tile sums over
  // goes to `parts` blocks of threads; each leaves its sum in `sums` where there are several. 0: nothing
  // is summed over, and the keys kernel writes the gradient as it goes.
  int parts;
  i64 tiles;    // parts included
  float* sums;  // workspace [parts][elements of the gradient, row-major]; null: one part
};

// Three kernels, or four: rows (of queries: RowFacts, zeros for dQ's sums), keys (dK, dV, dQ's sums),
// bias (its gradient, when asked for) and finish (dQ, and what was left in parts).
struct BackwardParams {
  ForwardParams f;  // o and lse are inputs; query_blocks and tiles are those of rows and finish
  Operand grad_o, grad_q, grad_k, grad_v;
  const float* grad_lse;  // null: none; rows start as those of f.lse do, by strides of their own
  i64 grad_lse_b_stride, grad_lse_h_stride, grad_lse_s_stride;
  float* grad_sink;  // null: not asked for
  i64 grad_sink_stride;
  float* grad_alibi;  // null: not asked for; strides 0 where all sequences share a slope
  i64 grad_alibi_b_stride, grad_alibi_h_stride;
  BiasGradient grad_bias;

  // A tile of keys is one block of keys of one key head of one sequence.
  int key_blocks;
  i64 key_tiles;   // key_blocks * hkv * b
  i64 row_blocks;  // blocks of queries in memory: packed sequences start anew, total_q / queries + b

  // Workspace.
  RowFacts* rows;     // [row_blocks, hq, queries]
  float* grad_q_sum;  // [row_blocks, hq, queries * width], a tile in the order of the fragments
  // Unbounded head dim: [key_tiles], each dK's keys * backward_columns(d) floats, then dV's
  // keys * backward_columns(dv).
  float* key_sum;
  float* alibi_parts;  // [b, hq, key_blocks]
  float* sink_parts;   // [b, hq, query_blocks, warps]
  u32* turns;          // deterministic: [1 + row_blocks * hq], rows zeroes them; null: any order
  // Blocks of threads of finish: f.tiles for dQ, then these.
  int sink_tiles, alibi_tiles;  // one a head, one a slope
  i64 bias_tiles;               // one for kBiasSumElements elements of `sums`
};

}  // namespace attune::kernel
