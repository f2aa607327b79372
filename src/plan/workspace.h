// Device memory that a plan asks for, cut into pieces.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace attune {

struct WorkspacePiece {
  const char* name = "";   // what it holds
  std::size_t offset = 0;  // a multiple of 256
  std::size_t bytes = 0;   // 0: not needed
  // Its address; null when it is not needed.
  template <typename T>
  [[nodiscard]] T* in(void* workspace) const {
    if (bytes == 0) return nullptr;
    return reinterpret_cast<T*>(static_cast<std::byte*>(workspace) + offset);
  }
};

// Lays piece after piece.
class WorkspaceLayout {
 public:
  // A piece of `unit` bytes times all counts. Refuses one that ends past 2^63, naming the counts.
  // Precondition: none is negative.
  [[nodiscard]] Status add(WorkspacePiece& piece, const char* name, std::int64_t unit,
                           std::initializer_list<std::int64_t> counts);
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(end_); }

 private:
  std::int64_t end_ = 0;
};

}  // namespace attune
