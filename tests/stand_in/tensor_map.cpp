#include "tests/stand_in/tensor_map.h"

#include <cstdint>
#include <mutex>

#include "tests/stand_in/state.h"

// NOLINTBEGIN: names are those of the library that this stands in for.
namespace attune::testing {
namespace {

std::mutex mutex;
StandInTensorMap maps[kStandInLaunches];
int count = 0;

}  // namespace

const StandInTensorMap* tensor_map(int n) { return &maps[n]; }
int tensor_map_count() { return count; }
void forget_tensor_maps() { count = 0; }

}  // namespace attune::testing

using namespace attune::testing;
using attune::cuda::Result;

extern "C" {
// The map is what it was made from, so that a launch shows it.
Result cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address,
                              const std::uint64_t* sizes, const std::uint64_t* strides,
                              const std::uint32_t* box, const std::uint32_t* steps, int,
                              int swizzle, int, int) {
  ENTER("cuTensorMapEncodeTiled");
  const auto data = reinterpret_cast<std::uintptr_t>(address);
  if (rank < 1 || rank > 5 || data % 16 != 0) return kInvalidValue;
  StandInTensorMap described{};
  described.type = type;
  described.data = address;
  auto* words = static_cast<unsigned long long*>(map);
  *words++ = static_cast<unsigned long long>(type);
  *words++ = data;
  *words++ = static_cast<unsigned long long>(swizzle);
  for (unsigned i = 0; i < rank; ++i) {
    if (sizes[i] < 1 || sizes[i] > std::uint64_t{1} << 32 || box[i] < 1 || box[i] > 256 ||
        steps[i] < 1) {
      return kInvalidValue;
    }
    *words++ = sizes[i];
    *words++ = box[i];
    if (i < 4) described.sizes[i] = sizes[i], described.box[i] = box[i];
    if (i + 1 == rank) break;
    if (strides[i] % 16 != 0 || strides[i] >= std::uint64_t{1} << 40) return kInvalidValue;
    *words++ = strides[i];
    if (i < 3) described.strides[i] = strides[i];
  }
  const std::lock_guard lock(mutex);
  if (count < kStandInLaunches) maps[count] = described;
  ++count;
  return 0;
}
}  // extern "C"
// NOLINTEND
