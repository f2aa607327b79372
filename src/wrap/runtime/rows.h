// A copy between two layouts of a tensor as copies of rows of neighbours.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wrap/runtime/abi.h"

namespace attune::wrapped {

struct Rows {
  std::size_t bytes = 0;  // of a row; 0: there is nothing to copy
  int dimensions = 0;     // over which rows repeat, the innermost first
  std::int64_t count[ATTUNE_WRAPPED_MAX_RANK] = {};
  std::int64_t from[ATTUNE_WRAPPED_MAX_RANK] = {};  // bytes from row to row
  std::int64_t to[ATTUNE_WRAPPED_MAX_RANK] = {};
};

// Strides are in elements; the innermost ones are 1.
inline Rows rows_of(int rank, const std::int64_t* shape, const std::int64_t* from,
                    const std::int64_t* to, int element_bytes) {
  Rows rows;
  std::int64_t run = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    if (shape[axis] == 0) return {};
    if (shape[axis] == 1) continue;
    if (rows.dimensions == 0 && from[axis] == run && to[axis] == run) {
      run *= shape[axis];
      continue;
    }
    rows.count[rows.dimensions] = shape[axis];
    rows.from[rows.dimensions] = from[axis] * element_bytes;
    rows.to[rows.dimensions] = to[axis] * element_bytes;
    ++rows.dimensions;
  }
  rows.bytes = static_cast<std::size_t>(run * element_bytes);
  return rows;
}

// f(offset in from, offset in to) for each index of the dimensions from `first` on, until one fails.
template <typename F>
int each_row(const Rows& rows, int first, const F& f) {
  std::int64_t index[ATTUNE_WRAPPED_MAX_RANK] = {}, from = 0, to = 0;
  for (;;) {
    if (const int code = f(from, to)) return code;
    int axis = first;
    for (; axis < rows.dimensions; ++axis) {
      from += rows.from[axis];
      to += rows.to[axis];
      if (++index[axis] < rows.count[axis]) break;
      from -= rows.from[axis] * rows.count[axis];
      to -= rows.to[axis] * rows.count[axis];
      index[axis] = 0;
    }
    if (axis >= rows.dimensions) return ATTUNE_WRAPPED_OK;
  }
}

}  // namespace attune::wrapped
