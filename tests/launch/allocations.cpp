// Counts what the program allocates. In a file of its own, so that no compiler sees both halves of an
// allocation and wonders.
#include <cstddef>
#include <cstdlib>
#include <new>

#include "tests/launch/fixture.h"

namespace {

thread_local long count = 0;

}  // namespace

long attune::testing::allocations() { return count; }

// NOLINTBEGIN: arrays and the rest of the family call these; AddressSanitizer has its own of each, and
// wonders where some come from elsewhere.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++count;
  return std::malloc(bytes > 0 ? bytes : 1);
}
void* operator new(std::size_t bytes) {
  if (void* memory = operator new(bytes, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return operator new(bytes, std::nothrow);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
// NOLINTEND
