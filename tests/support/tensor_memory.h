// TensorMemory: the memory of one tensor under test, with any strides. Every byte that is not an
// element is poison, and one end lies against a page that can't
// be touched, so that a kernel which reads or writes outside is caught in every build type.
#pragma once

#include <array>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace attune::testing {

using Shape = std::vector<std::int64_t>;
using Index = std::array<std::int64_t, kMaxRank>;

// What every byte of a fresh tensor is: a NaN in every float dtype, -1 in the integers.
inline constexpr std::byte kPoison{0xFF};

// Which end of the memory lies against the forbidden page.
enum class Edge : std::uint8_t { front, back };

// filled: all poison at first. sparse: zero pages that cost nothing until touched, for tensors with
// huge strides; damage() sees nothing there.
enum class Backing : std::uint8_t { filled, sparse };

class TensorMemory {
 public:
  TensorMemory() = default;
  // strides in elements, one for each extent; none means row-major.
  TensorMemory(DType dtype, const Shape& shape, const Shape& strides = {}, Edge edge = Edge::back,
               Backing backing = Backing::filled);
  TensorMemory(TensorMemory&& other) noexcept;
  TensorMemory& operator=(TensorMemory&& other) noexcept;
  ~TensorMemory();

  [[nodiscard]] const TensorView& view() const { return view_; }
  [[nodiscard]] bool empty() const { return mapping_ == nullptr; }

  [[nodiscard]] double get(const Index& index) const;
  void set(const Index& index, double value);
  // Element `index` of a rank-1 tensor.
  [[nodiscard]] double get(std::int64_t index) const { return get(Index{index, 0, 0, 0}); }
  void set(std::int64_t index, double value) { set(Index{index, 0, 0, 0}, value); }

  // Makes every byte poison again: what an output holds before a run.
  void poison();

  // Remembers all bytes as they are now: what an input must still be after a run.
  void seal();

  // Empty, or what a run did to bytes that it had no business with: of a sealed tensor to any byte,
  // else to any byte between or around the elements.
  [[nodiscard]] std::string damage() const;

  // The elements in logical order, as raw bytes: equal iff the results are the same bits.
  [[nodiscard]] std::vector<std::byte> element_bytes() const;

 private:
  void release();
  [[nodiscard]] std::byte* address(const Index& index) const;
  [[nodiscard]] std::uint64_t checksum() const;

  void* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
  std::byte* usable_ = nullptr;  // every byte that may be touched
  std::size_t usable_bytes_ = 0;
  TensorView view_;
  bool sparse_ = false;
  bool sealed_ = false;
  std::uint64_t seal_ = 0;
};

// Calls visit(index) for every element of the view in row-major order.
template <typename Visit>
void for_each_index(const TensorView& view, Visit&& visit) {
  std::array<std::int64_t, kMaxRank> extent{1, 1, 1, 1};
  for (int axis = 0; axis < view.rank; ++axis) {
    extent[static_cast<std::size_t>(axis)] = view.shape[static_cast<std::size_t>(axis)];
  }
  Index index{};
  for (index[0] = 0; index[0] < extent[0]; ++index[0]) {
    for (index[1] = 0; index[1] < extent[1]; ++index[1]) {
      for (index[2] = 0; index[2] < extent[2]; ++index[2]) {
        for (index[3] = 0; index[3] < extent[3]; ++index[3]) visit(index);
      }
    }
  }
}

}  // namespace attune::testing
