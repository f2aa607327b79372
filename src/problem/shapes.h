// Which tensors a Problem has, and what each must look like: the one table behind validate(),
// check() and everything that builds Arguments.
#pragma once

#include <array>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>

namespace attune {

// The limits of the contract. Lengths leave room for a tile's padding inside 32 bits.
inline constexpr std::int64_t kMaxLength = 2147483647 - 4096;  // sq, sk, page_size
inline constexpr std::int64_t kMaxCount = 2147483647;          // b, hq, hkv, totals, pages
inline constexpr std::int64_t kMaxHeadDim = 65536;             // d, dv
inline constexpr std::int64_t kMaxOffset = std::int64_t{1} << 62;

enum class Role : std::uint8_t { unused, input, output };

struct TensorSpec {
  const char* name = "";                  // as in Arguments
  TensorView Arguments::*view = nullptr;  // where it lies in Arguments
  Role role = Role::unused;               // in this Problem
  const char* why_unused = "";            // "the problem has no bias"
  DType dtype = DType::f32;
  bool any_float = false;  // f32, f16 and bf16 all do (grad_bias)
  int rank = 0;
  std::array<std::int64_t, kMaxRank> shape{};
  const char* dims = "";                      // the shape in words, "[B, Sq, Hq, D]"
  const Problem::Strides* strides = nullptr;  // what the Problem prescribes; null: any
  bool aligned =
      false;  // starts at a multiple of the Problem's alignment: q, k, v, o, their gradients
};

inline constexpr std::size_t kTensorCount = 23;

// Every tensor of Arguments in its order there; shapes are filled for those in use. The strides
// point into `problem`. Allocates nothing. Precondition: sizes within the limits above.
[[nodiscard]] std::array<TensorSpec, kTensorCount> tensors_of(const Problem& problem);

// Its dtype and shape without gaps; data is null.
[[nodiscard]] TensorView row_major_view(const TensorSpec& spec);

}  // namespace attune
