#include "tests/support/tensor_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tests/support/scalar.h"

namespace attune::testing {
namespace {

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

Shape row_major(const Shape& shape) {
  Shape strides(shape.size(), 1);
  for (std::size_t axis = shape.size(); axis-- > 1;) {
    strides[axis - 1] = strides[axis] * std::max<std::int64_t>(shape[axis], 1);
  }
  return strides;
}

}  // namespace

TensorMemory::TensorMemory(DType dtype, const Shape& shape, const Shape& strides, Edge edge,
                           Backing backing)
    : sparse_(backing == Backing::sparse) {
  const Shape steps = strides.empty() ? row_major(shape) : strides;
  view_.dtype = dtype;
  view_.rank = static_cast<int>(shape.size());
  std::int64_t lowest = 0, highest = 0;
  bool any = true;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    view_.shape[axis] = shape[axis];
    view_.strides[axis] = steps[axis];
    any = any && shape[axis] > 0;
    const std::int64_t reach = (shape[axis] - 1) * steps[axis];
    (reach < 0 ? lowest : highest) += reach;
  }
  const std::size_t size = size_of(dtype);
  const std::size_t bytes = any ? static_cast<std::size_t>(highest - lowest + 1) * size : 0;

  const std::size_t page = page_bytes();
  usable_bytes_ = (bytes + page - 1) / page * page;
  mapping_bytes_ = usable_bytes_ + 2 * page;
  mapping_ =
      mmap(nullptr, mapping_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    std::perror("TensorMemory: mmap");
    std::abort();
  }
  usable_ = static_cast<std::byte*>(mapping_) + page;
  if (usable_bytes_ > 0 && mprotect(usable_, usable_bytes_, PROT_READ | PROT_WRITE) != 0) {
    std::perror("TensorMemory: mprotect");
    std::abort();
  }
  std::byte* const begin = edge == Edge::front ? usable_ : usable_ + (usable_bytes_ - bytes);
  view_.data = begin + (any ? static_cast<std::size_t>(-lowest) * size : 0);
  poison();
}

TensorMemory::TensorMemory(TensorMemory&& other) noexcept { *this = std::move(other); }

TensorMemory& TensorMemory::operator=(TensorMemory&& other) noexcept {
  if (this != &other) {
    release();
    mapping_ = std::exchange(other.mapping_, nullptr);
    mapping_bytes_ = other.mapping_bytes_;
    usable_ = other.usable_;
    usable_bytes_ = other.usable_bytes_;
    view_ = std::exchange(other.view_, TensorView{});
    sparse_ = other.sparse_;
    sealed_ = other.sealed_;
    seal_ = other.seal_;
  }
  return *this;
}

TensorMemory::~TensorMemory() { release(); }

void TensorMemory::release() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
  mapping_ = nullptr;
}

std::byte* TensorMemory::address(const Index& index) const {
  std::int64_t offset = 0;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(view_.rank); ++axis) {
    offset += index[axis] * view_.strides[axis];
  }
  return static_cast<std::byte*>(view_.data) +
         offset * static_cast<std::int64_t>(size_of(view_.dtype));
}

double TensorMemory::get(const Index& index) const {
  return load_scalar(address(index), view_.dtype);
}

void TensorMemory::set(const Index& index, double value) {
  store_scalar(address(index), view_.dtype, value);
}

void TensorMemory::poison() {
  if (!sparse_ && usable_bytes_ > 0) {
    std::memset(usable_, static_cast<int>(kPoison), usable_bytes_);
  }
}

std::uint64_t TensorMemory::checksum() const {
  std::uint64_t sum = 0xCBF29CE484222325u;
  for (std::size_t at = 0; at < usable_bytes_; at += sizeof(std::uint64_t)) {  // whole pages
    std::uint64_t word = 0;
    std::memcpy(&word, usable_ + at, sizeof word);
    sum = (sum ^ word) * 0x100000001B3u;
    sum ^= sum >> 29;
  }
  return sum;
}

void TensorMemory::seal() {
  if (sparse_) return;
  sealed_ = true;
  seal_ = checksum();
}

std::string TensorMemory::damage() const {
  if (sparse_ || usable_bytes_ == 0) return {};
  if (sealed_) return checksum() == seal_ ? "" : "an input was modified";
  std::vector<char> owned(usable_bytes_, 0);
  const std::size_t size = size_of(view_.dtype);
  for_each_index(view_, [&](const Index& index) {
    const auto at = static_cast<std::size_t>(address(index) - usable_);
    for (std::size_t byte = 0; byte < size; ++byte) owned[at + byte] = 1;
  });
  for (std::size_t at = 0; at < usable_bytes_; ++at) {
    if (owned[at] == 0 && usable_[at] != kPoison) {
      const auto* first = static_cast<const std::byte*>(view_.data);
      return "a byte outside the elements was written, " + std::to_string(usable_ + at - first) +
             " bytes from the first element";
    }
  }
  return {};
}

std::vector<std::byte> TensorMemory::element_bytes() const {
  std::vector<std::byte> bytes;
  const std::size_t size = size_of(view_.dtype);
  bytes.reserve(static_cast<std::size_t>(view_.elements()) * size);
  for_each_index(view_, [&](const Index& index) {
    const std::byte* const element = address(index);
    bytes.insert(bytes.end(), element, element + size);
  });
  return bytes;
}

}  // namespace attune::testing
