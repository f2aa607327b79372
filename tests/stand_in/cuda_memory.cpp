// The part of the stand-in that is about memory: it is the host's.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "tests/stand_in/state.h"

// NOLINTBEGIN: as in its header.
namespace attune::testing {
namespace {

Result take_memory(DevicePointer* out, std::size_t bytes) {
  // Pages that cost nothing until touched, so that tensors may be as large as on a real device.
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return 2;
  State& s = state();
  const std::lock_guard lock(s.mutex);
  *out = reinterpret_cast<DevicePointer>(memory);
  s.memory[*out] = bytes;
  return 0;
}

Result give_memory(DevicePointer address) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const auto found = s.memory.find(address);
  if (found == s.memory.end()) return kInvalidValue;
  munmap(reinterpret_cast<void*>(address), found->second);
  s.memory.erase(found);
  return 0;
}

}  // namespace
}  // namespace attune::testing

using namespace attune::testing;
using attune::cuda::DevicePointer;
using attune::cuda::Result;

extern "C" {

Result cuPointerGetAttribute(void* value, int attribute, DevicePointer address) {
  ENTER("cuPointerGetAttribute");
  if (attribute != attune::cuda::kPointerMemoryType) return kInvalidValue;
  State& s = state();
  const std::lock_guard lock(s.mutex);
  auto after = s.memory.upper_bound(address);
  if (after == s.memory.begin()) return kInvalidValue;
  --after;
  if (address >= after->first + after->second) return kInvalidValue;
  *static_cast<unsigned*>(value) = 2;
  return 0;
}
Result cuMemAlloc_v2(DevicePointer* address, std::size_t bytes) {
  ENTER("cuMemAlloc");
  if (const Result result = synchronising(); result != 0) return result;
  return take_memory(address, bytes);
}
Result cuMemFree_v2(DevicePointer address) {
  ENTER("cuMemFree");
  return give_memory(address);
}
Result cuMemAllocAsync(DevicePointer* address, std::size_t bytes, void*) {
  ENTER("cuMemAllocAsync");
  return take_memory(address, bytes);
}
Result cuMemFreeAsync(DevicePointer address, void*) {
  ENTER("cuMemFreeAsync");
  return give_memory(address);
}
Result cuMemcpyHtoD_v2(DevicePointer to, const void* from, std::size_t bytes) {
  ENTER("cuMemcpyHtoD");
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
Result cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, std::size_t bytes, void*) {
  ENTER("cuMemcpyHtoDAsync");
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
Result cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, std::size_t bytes, void*) {
  ENTER("cuMemcpyDtoDAsync");
  std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  return 0;
}
Result cuMemcpy2DAsync_v2(const attune::cuda::Copy2D* c, void*) {
  ENTER("cuMemcpy2DAsync");
  for (std::size_t row = 0; row < c->height; ++row) {
    std::memmove(reinterpret_cast<void*>(c->to_device + row * c->to_pitch),
                 reinterpret_cast<const void*>(c->from_device + row * c->from_pitch),
                 c->width_bytes);
  }
  return 0;
}
Result cuMemsetD8Async(DevicePointer to, unsigned char value, std::size_t count, void*) {
  ENTER("cuMemsetD8Async");
  std::memset(reinterpret_cast<void*>(to), value, count);
  return 0;
}
Result cuMemsetD16Async(DevicePointer to, unsigned short value, std::size_t count, void*) {
  ENTER("cuMemsetD16Async");
  std::fill_n(reinterpret_cast<unsigned short*>(to), count, value);
  return 0;
}
Result cuMemsetD32Async(DevicePointer to, unsigned value, std::size_t count, void*) {
  ENTER("cuMemsetD32Async");
  std::fill_n(reinterpret_cast<unsigned*>(to), count, value);
  return 0;
}
Result cuMemcpyDtoH_v2(void* to, DevicePointer from, std::size_t bytes) {
  ENTER("cuMemcpyDtoH");
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return 0;
}
Result cuMemsetD8_v2(DevicePointer to, unsigned char value, std::size_t bytes) {
  ENTER("cuMemsetD8");
  std::memset(reinterpret_cast<void*>(to), value, bytes);
  return 0;
}
}  // extern "C"
// NOLINTEND
