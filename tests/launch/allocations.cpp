// Counts what the program allocates. In a file of its own, so that no compiler sees both halves of an
// allocation and wonders. A sanitizer has these functions itself: nothing is counted there.
#include <cstddef>
#include <cstdlib>
#include <new>

#include "tests/launch/fixture.h"

#ifdef ATTUNE_SANITIZED

std::optional<long> attune::testing::allocations() { return std::nullopt; }

#else

namespace {

thread_local long count = 0;

}  // namespace

std::optional<long> attune::testing::allocations() { return count; }

// NOLINTBEGIN: the rest of the family calls these.
void* operator new(std::size_t bytes) {
  ++count;
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
// NOLINTEND

#endif
