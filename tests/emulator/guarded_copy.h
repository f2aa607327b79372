// A tensor of the caller's, copied to where a GPU's would lie: aligned as the Problem says, with poison
// around it, as close to a page that can't be touched as the alignment lets it.
#pragma once

#include <attune/tensor.hpp>
#include <cstddef>
#include <string>

namespace attune::emulator {

// Poison at first; what lies around it is poison too.
class GuardedMemory {
 public:
  // The byte at `first` comes to lie `misalignment` bytes past a multiple of 256.
  GuardedMemory(std::size_t bytes, std::size_t first = 0, std::size_t misalignment = 0);
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  ~GuardedMemory();

  [[nodiscard]] std::byte* data() const { return data_; }
  // Empty, or which byte around the memory was written.
  [[nodiscard]] std::string damage() const;

 private:
  std::byte* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
  std::byte *begin_ = nullptr, *end_ = nullptr;  // what may be touched
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// All bytes between the view's first and last element, what lies between elements too.
class GuardedCopy {
 public:
  // Precondition: the view reaches less than 2^63 bytes.
  explicit GuardedCopy(const TensorView& host, std::size_t misalignment = 0);

  [[nodiscard]] TensorView view() const;
  // Copies all bytes back to where they came from.
  void fetch() const;
  [[nodiscard]] std::string damage() const { return memory_.damage(); }

 private:
  TensorView host_;
  std::size_t before_ = 0, bytes_ = 0;  // below the first element; in all
  GuardedMemory memory_;
};

}  // namespace attune::emulator
