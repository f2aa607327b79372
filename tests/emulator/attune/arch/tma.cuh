// As kernels/attune/arch/tma.cuh, on the host: boxes arrive one row at a time, whenever it pleases them.
#pragma once

#include <attune/arch/mbarrier.cuh>

#include "tests/emulator/device.h"
#include "tests/emulator/tensor_box.h"

namespace attune::kernel {

inline void prefetch_map(const TensorMap&) {}

inline void load_box(u32 to, const TensorMap& map, u32 barrier, int column, int h, int row, int b) {
  using emulator::MappedTensor;
  const MappedTensor tensor = MappedTensor::of(&map);  // the parameters die with their thread
  if (to % 1024 != 0) emulator::fail("copies a box to where its swizzle does not begin");
  const int at[4] = {column, h, row, b};
  for (int r = 0; r < tensor.rows(); ++r) {
    emulator::later([=] {
      for (int chunk = 0; chunk < 8; ++chunk) {
        unsigned char x[16];
        tensor.read(x, at, r, chunk);
        const u32 swizzled = (chunk ^ r % 8) << 4;
        std::memcpy(emulator::at(to + r * 128 + swizzled, 16), x, 16);
      }
      detail::complete_bytes(barrier, 128);
    });
  }
}

inline void load_box_twice(u32 to, const TensorMap& map, u32 barrier, int column, int h, int row,
                           int b) {
  using emulator::MappedTensor;
  const MappedTensor tensor = MappedTensor::of(&map);
  if (to % 1024 != 0) emulator::fail("copies a box to where its swizzle does not begin");
  if (cluster_blocks() != 2) emulator::fail("copies to a block that is not there");
  const int at[4] = {column, h, row, b};
  for (unsigned rank = 0; rank < 2; ++rank) {
    for (int r = 0; r < tensor.rows(); ++r) {
      emulator::later([=] {
        for (int chunk = 0; chunk < 8; ++chunk) {
          unsigned char x[16];
          tensor.read(x, at, r, chunk);
          const u32 swizzled = (chunk ^ r % 8) << 4;
          std::memcpy(emulator::at_block(rank, to + r * 128 + swizzled, 16), x, 16);
        }
        detail::complete_bytes(
            *reinterpret_cast<detail::Mbarrier*>(emulator::at_block(rank, barrier, 8)), 128);
      });
    }
  }
}

inline void fence_shared_for_engines() {}

}  // namespace attune::kernel
