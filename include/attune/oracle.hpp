// The oracle: attention in float64 by plain loops, the contract read off line by line. Every kernel
// is judged by it, and embedders may call it too. Slow on purpose: O(B Hq Sq Sk (D + Dv)) scalars.
#pragma once

#include <attune/export.h>

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace attune::oracle {

// What float32 arithmetic may lose in each tensor, to first order and in units of 2^-23: for every
// element the sum of what its terms' roundings amount to, each term with the relative error of its
// own factors. So p_ij = exp(s_ij - LSE_i) counts with 1 + |LSE_i| + |scale| sum |q k| + |bias| +
// |slope distance|, and P (dP - delta) with the terms of dP and delta, also where it cancels to 0.
// The terms of o, grad_q, grad_k and grad_v add as independent errors do, by their squares; those
// of the other tensors, whose few elements may be very long sums, simply add. What the rounding of
// a saved float16 or bfloat16 o does to delta, and delta to a gradient, is included, and so is what
// f8e4m3's rounding of P does to o: half a unit in the last place of each p_ij.
struct Terms {
  struct Sum {
    double max = 0;      // the largest over the tensor's elements
    double squares = 0;  // sum of the squares over the elements
  };
  Sum o, lse, grad_q, grad_k, grad_v, grad_bias, grad_sink, grad_alibi_slopes;
};

// Results as float64, each row-major in the logical shape of its tensor in Arguments (so o is
// [B, Sq, Hq, Dv], or [1, total_q, Hq, Dv] when packed); empty where the Problem does not ask.
// Rows that belong to no sequence (outside cu_seqlens) are 0 in o and gradients; +inf padding of
// LseLayout::padded32 is present.
struct Result {
  std::vector<double> o, lse;
  std::vector<double> grad_q, grad_k, grad_v, grad_bias, grad_sink, grad_alibi_slopes;
  Terms terms;  // of exact runs only
};

// How each step is rounded. `exact` is the oracle. `plain` is the yardstick of the tolerance rule:
// the textbook eager computation in the Problem's dtype (every intermediate tensor - scores, P, dP,
// dS - rounded to that dtype, matrix products accumulated in float32). Plain f8e4m3 keeps the scores in
// float32 and rounds exp(s - largest s of the row) to E4M3, times a power of two that makes the largest
// 256; it divides by the sum of what was not rounded, applies dropout and scales in float32 and rounds o
// to bfloat16.
// Plain backward starts from what a kernel is given, where that is not empty: delta comes from
// arguments.o as it was rounded, P of float32 from arguments.lse. (P of float16 and bfloat16 keeps
// its own denominator, which fits the rounded scores.) Exact backward never reads either.
enum class Rounding : std::uint8_t { exact, plain };

// Computes what problem.kind asks: o and the LSE, or every gradient. Reads the inputs of
// `arguments` only; backward computes its own o and LSE (see Rounding). Both o and lse (in layout
// problem.lse, plain when none) are always filled.
// Expects what validate() and check() accept, and refuses only what it can't read; f64 tensors are
// welcome as well (Rounding::exact). Query heads run one after another on the calling thread.
[[nodiscard]] ATTUNE_API Expected<Result> run(const Problem& problem, const Arguments& arguments,
                                              Rounding rounding = Rounding::exact);

// The tolerance rule. All over one tensor: max |got - exact| and the RMS of the same, for the kernel
// and for the plain computation.
struct Error {
  double max = 0, rms = 0;
  double plain_max = 0, plain_rms = 0;
  // One unit in the last place of max |exact|, plus as much as 2^-23 of the terms (their largest,
  // their RMS) exceeds 2 plain_max or 1.5 plain_rms: the plain computation is one sample of
  // rounding, which may be right by luck.
  double floor = 0, rms_floor = 0;
  // max / (2 plain_max + floor) and rms / (1.5 plain_rms + rms_floor): at most 1 passes.
  double max_ratio = 0, rms_ratio = 0;
  bool same_nonfinite = true;  // NaN and infinities stand where the oracle's stand
  std::string first_bad;       // "[1, 7, 0, 3]: got 0.5, want 0.25" of the worst element
  [[nodiscard]] bool pass() const { return same_nonfinite && max_ratio <= 1.0 && rms_ratio <= 1.0; }
};

// Compares a computed tensor with the oracle's; `plain` may be empty (then only the floor counts).
// An exact value past the range of got's dtype (or within the tolerance of it) may be infinite
// there; the largest finite value that counts for the floor is one that the dtype can hold. A
// tensor of zeros has to be zero exactly, unless its terms cancel to zero. `terms` are the exact
// Result's.
[[nodiscard]] ATTUNE_API Error compare(const TensorView& got, const std::vector<double>& exact,
                                       const std::vector<double>& plain,
                                       const Terms::Sum& terms = {});

// The same for one tensor of a Result, such as &Result::grad_q, with all that belongs to it.
[[nodiscard]] ATTUNE_API Error compare(const TensorView& got, std::vector<double> Result::*tensor,
                                       const Result& exact, const Result& plain);

// Keep decision of dropout for element `index` of the stream (seed, subsequence 0, offset + index):
// Philox4x32-10 (Salmon et al., SC'11) and cuRAND's uniform in (0, 1]; kept iff u > probability.
[[nodiscard]] ATTUNE_API bool dropout_keep(std::uint64_t seed, std::uint64_t offset,
                                           std::uint64_t index, double probability);

// Keep decision of element (b, h, i, j) of a Problem with dropout, of whichever stream it names.
[[nodiscard]] ATTUNE_API bool dropout_keep(const Problem& problem, std::uint64_t seed,
                                           std::uint64_t offset, std::int64_t b, std::int64_t h,
                                           std::int64_t i, std::int64_t j);

// The four words of Philox4x32-10.
struct Philox {
  std::uint32_t word[4];
};
[[nodiscard]] ATTUNE_API Philox philox4x32_10(const std::uint32_t counter[4],
                                              const std::uint32_t key[2]);

}  // namespace attune::oracle
