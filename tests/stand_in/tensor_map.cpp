#include "tests/stand_in/tensor_map.h"

#include <cstdint>
#include <cstring>
#include <mutex>

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

extern "C" {

attune::cuda::Result cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* data,
                                            const std::uint64_t* sizes,
                                            const std::uint64_t* strides, const std::uint32_t* box,
                                            const std::uint32_t* steps, int interleave, int swizzle,
                                            int, int) {
  using namespace attune::testing;
  if (const auto told = enter("cuTensorMapEncodeTiled"); told != 0) return told;
  bool right = reinterpret_cast<std::uintptr_t>(map) % 64 == 0 && rank == 4 &&
               reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && interleave == 0 &&
               swizzle == attune::cuda::kTensorMapSwizzle128 && box[0] * 2 <= 128;
  StandInTensorMap described{};
  described.type = type;
  described.data = data;
  for (unsigned i = 0; i < 4; ++i) {
    right = right && sizes[i] >= 1 && sizes[i] <= std::uint64_t{1} << 32 && box[i] >= 1 &&
            box[i] <= 256 && steps[i] == 1;
    described.sizes[i] = sizes[i];
    described.box[i] = box[i];
    if (i == 3) break;
    right = right && strides[i] % 16 == 0 && strides[i] < std::uint64_t{1} << 40;
    described.strides[i] = strides[i];
  }
  if (!right) return attune::cuda::kErrorInvalidValue;
  const std::lock_guard lock(mutex);
  if (count < kStandInLaunches) maps[count] = described;
  ++count;
  std::memset(map, 0x5a, 128);
  return 0;
}

}  // extern "C"
