// Elements of a TensorView as numbers: by logical index, through any strides, for every dtype.
#pragma once

#include <array>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "oracle/rounding.h"

namespace attune::oracle {

using Index = std::array<std::int64_t, kMaxRank>;

// Distance in elements from view.data to the element at `index`, whose first `rank` entries count.
[[nodiscard]] inline std::int64_t offset_of(const TensorView& view, const Index& index) {
  std::int64_t offset = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    const auto a = static_cast<std::size_t>(axis);
    offset += index[a] * view.strides[a];
  }
  return offset;
}

// memcpy: caller's buffers may be unaligned, and bytes that are neither 0 nor 1 are no bool.
template <typename T>
[[nodiscard]] T load(const void* data, std::int64_t offset) {
  T value;
  const auto bytes = offset * static_cast<std::int64_t>(sizeof(T));
  std::memcpy(&value, static_cast<const std::byte*>(data) + bytes, sizeof(T));
  return value;
}

template <typename T>
void store(void* data, std::int64_t offset, T value) {
  const auto bytes = offset * static_cast<std::int64_t>(sizeof(T));
  std::memcpy(static_cast<std::byte*>(data) + bytes, &value, sizeof(T));
}

// Reads `count` elements, `stride` apart, from `offset` on. Touches no memory when count is 0.
template <typename Real>
void read_row(const TensorView& view, std::int64_t offset, std::int64_t stride, std::int64_t count,
              Real* out) {
  const auto each = [&](auto element) {
    for (std::int64_t n = 0; n < count; ++n)
      out[n] = static_cast<Real>(element(offset + n * stride));
  };
  const void* data = view.data;
  switch (view.dtype) {
    case DType::f32:
      return each([data](std::int64_t at) { return load<float>(data, at); });
    case DType::f16:
      return each(
          [data](std::int64_t at) { return float_from_f16(load<std::uint16_t>(data, at)); });
    case DType::bf16:
      return each(
          [data](std::int64_t at) { return float_from_bf16(load<std::uint16_t>(data, at)); });
    case DType::f64:
      return each([data](std::int64_t at) { return load<double>(data, at); });
    case DType::boolean:
      return each([data](std::int64_t at) { return load<std::uint8_t>(data, at) != 0 ? 1 : 0; });
    case DType::i32:
      return each([data](std::int64_t at) { return load<std::int32_t>(data, at); });
    case DType::i64:
      return each([data](std::int64_t at) { return load<std::int64_t>(data, at); });
    case DType::u8:
      return each([data](std::int64_t at) { return load<std::uint8_t>(data, at); });
    case DType::f8e4m3:
      return each(
          [data](std::int64_t at) { return float_from_f8e4m3(load<std::uint8_t>(data, at)); });
  }
}

// One element, exactly (i64 beyond 2^53 aside).
[[nodiscard]] inline double read(const TensorView& view, const Index& index) {
  double value = 0;
  read_row(view, offset_of(view, index), 0, 1, &value);
  return value;
}

// Writes one element, rounded to the view's dtype.
inline void write(const TensorView& view, const Index& index, double value) {
  const std::int64_t at = offset_of(view, index);
  switch (view.dtype) {
    case DType::f32:
      return store(view.data, at, static_cast<float>(value));
    case DType::f16:
      return store(view.data, at, f16_from_double(value));
    case DType::bf16:
      return store(view.data, at, bf16_from_double(value));
    case DType::f64:
      return store(view.data, at, value);
    case DType::boolean:
      return store(view.data, at, static_cast<std::uint8_t>(value != 0 ? 1 : 0));
    case DType::i32:
      return store(view.data, at, static_cast<std::int32_t>(value));
    case DType::i64:
      return store(view.data, at, static_cast<std::int64_t>(value));
    case DType::u8:
      return store(view.data, at, static_cast<std::uint8_t>(value));
    case DType::f8e4m3:
      return store(view.data, at, f8e4m3_from_double(value));
  }
}

// Calls body(index) for every element in row-major order.
template <typename Body>
void for_each_index(const TensorView& view, Body body) {
  Index index{};
  for (std::int64_t left = view.elements(); left > 0; --left) {
    body(static_cast<const Index&>(index));
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      const auto a = static_cast<std::size_t>(axis);
      if (++index[a] < view.shape[a]) break;
      index[a] = 0;
    }
  }
}

}  // namespace attune::oracle
