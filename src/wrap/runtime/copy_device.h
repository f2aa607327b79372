// Copies and fills in device memory, queued on the call's stream.
#pragma once

#include "wrap/runtime/launch.h"
#include "wrap/runtime/rows.h"

namespace attune::wrapped {

inline int copy(const Call& call, DevicePointer to, DevicePointer from, const Rows& rows) {
  if (rows.bytes == 0) return ATTUNE_WRAPPED_OK;
  if (rows.dimensions == 0) {
    const Result result = driver().copy_async(to, from, rows.bytes, call.stream);
    return result == cuda::kSuccess ? ATTUNE_WRAPPED_OK : driver_failed(result, "copying");
  }
  // Rows of the innermost dimension together.
  return each_row(rows, 1, [&](std::int64_t from_offset, std::int64_t to_offset) {
    cuda::Copy2D c{};
    c.from_type = c.to_type = cuda::kDeviceMemory;
    c.from_device = from + static_cast<DevicePointer>(from_offset);
    c.to_device = to + static_cast<DevicePointer>(to_offset);
    c.from_pitch = static_cast<std::size_t>(rows.from[0]);
    c.to_pitch = static_cast<std::size_t>(rows.to[0]);
    c.width_bytes = rows.bytes;
    c.height = static_cast<std::size_t>(rows.count[0]);
    const Result result = driver().copy_2d_async(&c, call.stream);
    return result == cuda::kSuccess ? ATTUNE_WRAPPED_OK : driver_failed(result, "copying rows");
  });
}

// `unit` is 1, 2 or 4 bytes, of which `pattern` has as many.
inline int fill(const Call& call, DevicePointer to, std::int64_t count, int unit,
                unsigned pattern) {
  if (count == 0) return ATTUNE_WRAPPED_OK;
  const Driver& d = driver();
  const auto n = static_cast<std::size_t>(count);
  const Result result =
      unit == 1   ? d.set_bytes(to, static_cast<unsigned char>(pattern), n, call.stream)
      : unit == 2 ? d.set_halves(to, static_cast<unsigned short>(pattern), n, call.stream)
                  : d.set_words(to, pattern, n, call.stream);
  return result == cuda::kSuccess ? ATTUNE_WRAPPED_OK : driver_failed(result, "filling");
}

}  // namespace attune::wrapped
