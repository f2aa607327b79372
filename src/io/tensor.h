// Tensor: named, owned, row-major bytes; what files are read into and written from.
#pragma once

#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

// Cache lines and the widest vector registers are 64 bytes.
inline constexpr std::size_t kTensorAlignment = 64;

template <typename T>
struct AlignedAllocator {
  using value_type = T;

  AlignedAllocator() = default;
  template <typename U>
  AlignedAllocator(const AlignedAllocator<U>&) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{kTensorAlignment}));
  }
  void deallocate(T* p, std::size_t) { ::operator delete (p, std::align_val_t{kTensorAlignment}); }

  friend bool operator==(const AlignedAllocator&, const AlignedAllocator&) { return true; }
};

// Bytes whose first one lies on a multiple of kTensorAlignment.
using AlignedBytes = std::vector<std::byte, AlignedAllocator<std::byte>>;

struct Tensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  // [] is a scalar
  AlignedBytes data;                // row-major, little-endian; elements * size_of(dtype) bytes

  // Files may hold more dimensions than a TensorView has room for (kMaxRank): look at rank() before
  // view(), which is an empty view for such a tensor. A view is valid while the Tensor lives and
  // its data is not resized. Nothing may be written through the view of a const Tensor.
  [[nodiscard]] int rank() const { return static_cast<int>(shape.size()); }
  [[nodiscard]] TensorView view() const;
};

// More dimensions than NumPy has; a file that claims more is refused.
inline constexpr std::size_t kMaxFileRank = 64;

// elements * size_of(dtype). Refused with the reason: a negative extent, more than kMaxFileRank
// dimensions, or a product past 2^63-1. Extents of 0 count as 1 for that last limit, so that
// strides of an accepted shape never overflow; the result is 0 all the same.
[[nodiscard]] Expected<std::size_t> byte_size(std::span<const std::int64_t> shape, DType dtype);

// Zero-filled. Refused as byte_size does, and as out_of_memory.
[[nodiscard]] Expected<Tensor> make_tensor(std::string name, DType dtype,
                                           std::vector<std::int64_t> shape);

// That a tensor's data has the size that its shape and dtype ask for (invalid_argument if not).
[[nodiscard]] Status check_consistent(const Tensor& tensor);

// "[2, 1024, 8, 64]"; long shapes are cut short.
[[nodiscard]] std::string shape_text(std::span<const std::int64_t> shape);

// Makes every non-zero byte of a boolean tensor 1, as NumPy means them; other dtypes are left alone.
void normalize_booleans(Tensor& tensor);

// A text from a file, made fit to print: a JSON string in ASCII, long ones cut short.
[[nodiscard]] std::string in_quotes(std::string_view text);

}  // namespace attune
