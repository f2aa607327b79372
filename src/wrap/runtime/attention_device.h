// Attention by Attune's kernels: what the library's plan is, for the rows that were compiled in.
#pragma once

#include <attune/params.h>

#include <cinttypes>
#include <cstdint>

#include "plan/forward_sizes.h"
#include "wrap/runtime/check.h"
#include "wrap/runtime/launch.h"

namespace attune::wrapped {

// A kernel that may run, in order of preference.
struct AttentionRow {
  int variant;
  const char* id;
  int arch_begin, arch_end;  // of its code, 10 * major + minor
  int shared_bytes;
  bool aligned;  // rows of q, k, v, o start at multiples of 16 bytes and have neighbours
  int queries;   // of a tile
};

inline kernel::Operand operand(DevicePointer data, const std::int64_t (&strides)[4], bool packed) {
  return {reinterpret_cast<void*>(data), packed ? 0 : strides[0], strides[1], strides[2],
          strides[3]};
}

inline bool starts_aligned(const kernel::Operand& x, const std::int64_t (&shape)[4],
                           int element_bytes) {
  constexpr int kLoad = 16;
  const int elements = kLoad / element_bytes;
  const auto fine = [&](std::int64_t extent, std::int64_t stride) {
    return extent <= 1 || stride % elements == 0;
  };
  return reinterpret_cast<std::uintptr_t>(x.data) % kLoad == 0 && fine(shape[0], x.b_stride) &&
         fine(shape[1], x.s_stride) && fine(shape[2], x.h_stride) &&
         (shape[3] <= 1 || x.d_stride == 1);
}

// Fills in what follows from the sizes and launches the first row that serves.
inline int launch_attention(const Call& call, const AttentionRow* rows, int count,
                            kernel::ForwardParams& p, bool aligned, int element_bytes) {
  const AttentionRow* row = nullptr;
  for (int i = 0; i < count && row == nullptr; ++i) {
    const AttentionRow& r = rows[i];
    const bool fits = call.loaded->arch >= r.arch_begin && call.loaded->arch < r.arch_end &&
                      r.shared_bytes <= call.loaded->shared_bytes && (aligned || !r.aligned) &&
                      serves(*call.instance, *call.loaded, r.variant);
    if (fits) row = &r;
  }
  if (row == nullptr) {
    char text[1024] = {};
    std::size_t used = 0;
    for (int i = 0; i < count; ++i) {
      const AttentionRow& r = rows[i];
      const bool of_arch = call.loaded->arch >= r.arch_begin && call.loaded->arch < r.arch_end &&
                           serves(*call.instance, *call.loaded, r.variant);
      const char* why = !of_arch                                     ? "has no code for it"
                        : r.shared_bytes > call.loaded->shared_bytes ? "needs more shared memory"
                                                                     : "needs rows of 16 bytes";
      const int written =
          std::snprintf(text + used, sizeof(text) - used, "%s%s %s", i == 0 ? "" : "; ", r.id, why);
      if (written > 0) used += static_cast<std::size_t>(written);
      if (used >= sizeof(text)) break;
    }
    return fail(ATTUNE_WRAPPED_UNSUPPORTED, "the GPU is sm_%d, and no kernel serves: %s",
                call.loaded->arch, text);
  }
  const std::int64_t rows_of_head = most(p.sq, p.lse.padded);
  p.query_blocks = static_cast<int>(forward_query_blocks(rows_of_head, row->queries));
  p.tiles = static_cast<std::int64_t>(p.query_blocks) * p.hq * p.b;
  const std::int64_t key_bytes = (static_cast<std::int64_t>(p.d) + p.dv) * element_bytes;
  p.heads_a_slice =
      forward_heads_a_slice(static_cast<std::int64_t>(p.sk) * key_bytes, p.group,
                            static_cast<std::int64_t>(p.b) * p.hq, call.loaded->l2_bytes);
  // Tiles lie in the grid as x + y * grid.x.
  constexpr std::int64_t kMostX = 2147483647;
  const std::int64_t y = most(1, ceil_div(p.tiles, kMostX));
  void* arguments[] = {&p};
  return launch(call, row->variant, {ceil_div(p.tiles, y), y, 1, false}, arguments);
}

}  // namespace attune::wrapped
