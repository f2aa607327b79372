// Problem: what is asked, as one small value that prints and parses.
#pragma once

#include <attune/export.h>

#include <array>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace attune {

enum class Kind : std::uint8_t { forward, backward };
enum class Device : std::uint8_t { automatic, cpu, cuda };

// Where the diagonal c_i of query i lies: c_i = i + offset, or c_i = i + (Sk - Sq) + offset, with
// Sq and Sk each sequence's own lengths.
enum class Diagonal : std::uint8_t { top_left, bottom_right };

// Key j is attended iff c_i - left <= j <= c_i + right (a side of -1 is unbounded) and, when causal,
// j <= c_i. The default attends to everything.
struct Mask {
  bool causal = false;
  Diagonal diagonal = Diagonal::bottom_right;
  std::int64_t offset = 0;
  std::int64_t left = -1;
  std::int64_t right = -1;
  friend bool operator==(const Mask&, const Mask&) = default;
};

enum class BiasKind : std::uint8_t { none, boolean, additive };

// bias[b, h, i, j]: boolean (false masks out) or added to the scores after scale and softcap; an
// additive -inf masks out. A broadcast dimension has extent 1.
struct Bias {
  BiasKind kind = BiasKind::none;
  DType dtype = DType::f32;  // additive: f32, f16 or bf16; boolean: boolean
  bool broadcast_b = false, broadcast_h = false, broadcast_q = false, broadcast_k = false;
  bool grad = false;  // backward only, additive only: the gradient, in the bias's own shape
  // CUDA: its rows start at multiples of 16 bytes, its keys are neighbours, its strides positive. Kernels that
  // copy it tile by tile ask for that.
  bool aligned = false;
  friend bool operator==(const Bias&, const Bias&) = default;
};

enum class PerHead : std::uint8_t { none, head, batch_head };  // absent, [Hq] or [B, Hq]

// Whose random numbers dropout draws; docs/architecture.md has both.
// curand: 32 bits an element, cuRAND's Philox4x32-10. Masks equal those of PyTorch's memory-efficient attention.
// fa2: 8 bits an element, Philox4x32-7 of FlashAttention-2, whose masks they equal; several times faster to draw. An
// element is dropped with probability (255 - floor(255 (1 - dropout))) / 256, what remains still divided by
// 1 - dropout: exact for multiples of 1/256.
enum class DropoutStream : std::uint8_t { curand, fa2 };

// plain: f32 [B, Hq, Sq], or [Hq, total_q] when packed.
// padded32: f32 [B, Hq, ceil(Sq / 32) * 32], rows past the sequence's own length +inf.
enum class LseLayout : std::uint8_t { none, plain, padded32 };

struct ATTUNE_API Problem {
  Kind kind = Kind::forward;
  Device device = Device::automatic;
  // Of q, k, v, o and their gradients: f32, f16 or bf16; with f8e4m3 (forward only) o is bf16.
  DType dtype = DType::f32;
  std::int64_t b = 1;  // sequences
  std::int64_t hq = 1, hkv = 1;
  std::int64_t sq = 1, sk = 1;  // when packed: the longest lengths
  std::int64_t d = 64, dv = 64;

  std::optional<double> scale = {};  // default 1 / sqrt(d)
  // f8e4m3: q_scale f32 [B, Hq], k_scale and v_scale f32 [B, Hkv] are given, each positive and finite, and
  // a number is what is stored times the scale of its sequence and head. Without, all scales are 1.
  bool descale = false;
  double softcap = 0;  // 0 = none
  Mask mask = {};
  Bias bias = {};
  PerHead alibi = PerHead::none;
  bool alibi_grad = false;
  bool sink = false;  // f32 [Hq]
  bool sink_grad = false;
  double dropout = 0;  // probability to drop, in [0, 1)
  DropoutStream dropout_stream = DropoutStream::curand;

  bool key_lengths = false;  // i32 [B]: only the first key_lengths[b] keys of sequence b exist
  bool packed_q = false;     // cu_seqlens_q: q, o are [1, total_q, Hq, D]
  bool packed_k = false;     // cu_seqlens_k: k, v are [1, total_k, Hkv, D]
  std::int64_t total_q = 0, total_k = 0;
  std::int64_t page_size = 0;  // > 0: k, v are [pages, page_size, Hkv, D], read through page_table
  std::int64_t pages = 0;      //   i32 [B, ceil(sk / page_size)]

  LseLayout lse = LseLayout::none;  // backward: the layout in which the LSE is given
  bool lse_grad = false;       // backward: an incoming gradient of the LSE, in the LSE's layout
  bool deterministic = false;  // same bits on every run and for every thread count

  // Strides in elements of q, k, v, o; all zero means contiguous.
  using Strides = std::array<std::int64_t, 4>;
  Strides q_strides{}, k_strides{}, v_strides{}, o_strides{};
  // Bytes that the addresses of q, k, v, o and their gradients are multiples of: a power of two up to
  // 256. CUDA kernels load 16 at a time where this and the strides allow it; the CPU's do not care.
  // With 16 and more, backward on a GPU may also refuse gradients whose rows are not neighbours at
  // multiples of 16 bytes, for no Problem states their strides; say less for those.
  std::int64_t alignment = 16;

  friend bool operator==(const Problem&, const Problem&) = default;

  // scale, or its default.
  [[nodiscard]] double effective_scale() const;
  // Of o: dtype, or bf16 when that is f8e4m3.
  [[nodiscard]] DType o_dtype() const;
};

// Checks the values against each other and the contract. Every refusal names the value and the
// limit. Zero sizes are allowed wherever the contract defines the result.
[[nodiscard]] ATTUNE_API Status validate(const Problem& problem);

// One line, keys in a fixed order, defaults left out; parse(print(p)) == p for every valid p.
//   forward dtype=bf16 b=2 hq=16 hkv=4 sq=1024 sk=1024 d=128 mask=causal-bottom-right
//   window=256,0 dropout=0.1 lse device=cpu
[[nodiscard]] ATTUNE_API std::string print(const Problem& problem);
[[nodiscard]] ATTUNE_API Expected<Problem> parse(std::string_view text);

[[nodiscard]] ATTUNE_API std::size_t hash(const Problem& problem);

}  // namespace attune
