// What a call brings, held against what the program was wrapped for.
#pragma once

#include <cinttypes>
#include <cstdint>

#include "wrap/runtime/abi.h"
#include "wrap/runtime/error.h"

namespace attune::wrapped {

using Tensor = attune_wrapped_tensor;

struct ElementType {
  const char* name;
  int bytes;
};

// By ATTUNE_WRAPPED_F32 and so on.
constexpr ElementType kElementTypes[] = {{"f32", 4},  {"f16", 2},    {"bf16", 2},  {"f64", 8},
                                         {"bool", 1}, {"i32", 4},    {"i64", 8},   {"u8", 1},
                                         {"i8", 1},   {"i16", 2},    {"u16", 2},   {"u32", 4},
                                         {"u64", 8},  {"f8e4m3", 1}, {"f8e5m2", 1}};

inline const char* element_name(int dtype) {
  constexpr int kCount = static_cast<int>(sizeof(kElementTypes) / sizeof(kElementTypes[0]));
  return dtype >= 0 && dtype < kCount ? kElementTypes[dtype].name : "no dtype";
}

struct SizeRule {
  const char* name;
  std::int64_t min, max, multiple_of;
};

inline int check_size(const SizeRule& rule, std::int64_t value) {
  if (value < rule.min || value > rule.max) {
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                "%s = %" PRId64 ", and the program was wrapped for %" PRId64 " to %" PRId64,
                rule.name, value, rule.min, rule.max);
  }
  if (value % rule.multiple_of != 0) {
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                "%s = %" PRId64 ", and the program was wrapped for multiples of %" PRId64,
                rule.name, value, rule.multiple_of);
  }
  return ATTUNE_WRAPPED_OK;
}

struct TensorRule {
  const char* name;
  const char* role;  // "input", "output"
  int dtype, rank;
  int alignment;               // bytes
  const char* const* shape;    // its extents as expressions
  const char* const* strides;  // likewise
};

// Before any extent is believed.
inline int check_rank(const TensorRule& rule, const Tensor& tensor) {
  if (tensor.rank == rule.rank) return ATTUNE_WRAPPED_OK;
  return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT, "%s %s has %d dimensions, expected %d", rule.role,
              rule.name, static_cast<int>(tensor.rank), rule.rank);
}

// `shape` and `strides` are those expected. Strides between fewer than two elements may be anything.
inline int check_tensor(const TensorRule& rule, const Tensor& tensor, const std::int64_t* shape,
                        const std::int64_t* strides) {
  if (tensor.dtype != rule.dtype) {
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT, "%s %s is %s, expected %s", rule.role, rule.name,
                element_name(tensor.dtype), element_name(rule.dtype));
  }
  bool empty = false;
  for (int axis = 0; axis < rule.rank; ++axis) {
    empty = empty || shape[axis] == 0;
    if (tensor.shape[axis] == shape[axis]) continue;
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                "%s %s: shape[%d] is %" PRId64 ", expected %s = %" PRId64, rule.role, rule.name,
                axis, tensor.shape[axis], rule.shape[axis], shape[axis]);
  }
  if (empty) return ATTUNE_WRAPPED_OK;
  for (int axis = 0; axis < rule.rank; ++axis) {
    if (tensor.strides[axis] == strides[axis] || shape[axis] == 1) continue;
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                "%s %s: strides[%d] is %" PRId64 ", expected %s = %" PRId64, rule.role, rule.name,
                axis, tensor.strides[axis], rule.strides[axis], strides[axis]);
  }
  if (tensor.data == nullptr) {
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT, "%s %s has no memory", rule.role, rule.name);
  }
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % static_cast<unsigned>(rule.alignment) != 0) {
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                "%s %s lies at %p, expected a multiple of %d bytes", rule.role, rule.name,
                tensor.data, rule.alignment);
  }
  return ATTUNE_WRAPPED_OK;
}

inline int check_view(const char* view, const char* base, std::int64_t end, std::int64_t bytes) {
  if (end <= bytes) return ATTUNE_WRAPPED_OK;
  return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
              "%s ends at byte %" PRId64 " of %s, which has %" PRId64, view, end, base, bytes);
}

inline int check_workspace(const void* workspace, std::size_t has, std::int64_t needs) {
  if (has < static_cast<std::size_t>(needs)) {
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                "the workspace has %zu bytes, and %" PRId64 " are needed", has, needs);
  }
  constexpr unsigned kAlignment = 256;
  if (reinterpret_cast<std::uintptr_t>(workspace) % kAlignment != 0) {
    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT,
                "the workspace lies at %p, expected a multiple of %u bytes", workspace, kAlignment);
  }
  return ATTUNE_WRAPPED_OK;
}

// Something that a compiled variant of a kernel needs.
struct Condition {
  int variant;
  const char* text;
  bool holds;
};

// The first of `variants` whose conditions all hold, or -1.
inline int first_that_fits(const Condition* conditions, int count, int variants) {
  for (int variant = 0; variant < variants; ++variant) {
    bool fits = true;
    for (int i = 0; i < count; ++i) {
      fits = fits && (conditions[i].variant != variant || conditions[i].holds);
    }
    if (fits) return variant;
  }
  return -1;
}

// Says for each variant the first thing that is against it.
inline int refuse_all(const char* what, const char* const* names, const Condition* conditions,
                      int count, int variants) {
  char text[1536] = {};
  std::size_t used = 0;
  for (int variant = 0; variant < variants; ++variant) {
    for (int i = 0; i < count; ++i) {
      if (conditions[i].variant != variant || conditions[i].holds) continue;
      const int written = std::snprintf(text + used, sizeof(text) - used, "%s%s needs %s",
                                        used > 0 ? "; " : "", names[variant], conditions[i].text);
      if (written > 0) used += static_cast<std::size_t>(written);
      if (used >= sizeof(text)) used = sizeof(text) - 1;
      break;
    }
  }
  return fail(ATTUNE_WRAPPED_UNSUPPORTED, "no %s serves: %s", what, text);
}

}  // namespace attune::wrapped
