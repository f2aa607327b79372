// What a program on the CPU does between its functions: copies, fills, a workspace, attention by Attune's
// library.
#pragma once

#include <attune/attune.h>

#include <cinttypes>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "wrap/runtime/arithmetic.h"
#include "wrap/runtime/check.h"
#include "wrap/runtime/image.h"
#include "wrap/runtime/rows.h"

namespace attune::wrapped {

inline int copy(void* to, const void* from, const Rows& rows) {
  if (rows.bytes == 0) return ATTUNE_WRAPPED_OK;
  return each_row(rows, 0, [&](std::int64_t from_offset, std::int64_t to_offset) {
    std::memcpy(static_cast<char*>(to) + to_offset, static_cast<const char*>(from) + from_offset,
                rows.bytes);
    return static_cast<int>(ATTUNE_WRAPPED_OK);
  });
}

// `pattern` has `unit` bytes.
inline int fill(void* to, std::int64_t count, int unit, unsigned pattern) {
  char* bytes = static_cast<char*>(to);
  for (std::int64_t i = 0; i < count; ++i, bytes += unit) {
    std::memcpy(bytes, &pattern, static_cast<std::size_t>(unit));
  }
  return ATTUNE_WRAPPED_OK;
}

class OwnWorkspace {
 public:
  OwnWorkspace() = default;
  ~OwnWorkspace() { std::free(memory_); }
  OwnWorkspace(const OwnWorkspace&) = delete;
  OwnWorkspace& operator=(const OwnWorkspace&) = delete;

  int allocate(std::int64_t bytes, void** out) {
    constexpr std::size_t kAlignment = 256;
    memory_ = std::aligned_alloc(kAlignment, static_cast<std::size_t>(round_up(bytes, kAlignment)));
    *out = memory_;
    if (memory_ != nullptr) return ATTUNE_WRAPPED_OK;
    return fail(ATTUNE_WRAPPED_OUT_OF_MEMORY,
                "there is no memory for a workspace of %" PRId64 " bytes", bytes);
  }

 private:
  void* memory_ = nullptr;
};

struct Tables {
  Image constants;  // no bytes: none
};

struct Call {
  struct Instance* instance;
};

// Plans by their Problem's text. A program that sees ever new sizes forgets all of them now and then.
class Plans {
 public:
  int run(const std::string& problem, const attune_arguments& arguments) {
    std::shared_ptr<attune_plan> plan;
    if (const int code = find(problem, plan)) return code;
    const int code = attune_plan_run(plan.get(), &arguments, nullptr, 0);
    return code == 0 ? ATTUNE_WRAPPED_OK
                     : fail(code, "%s: %s", problem.c_str(), attune_last_error());
  }

 private:
  int find(const std::string& problem, std::shared_ptr<attune_plan>& out) {
    const std::lock_guard<std::mutex> lock(mutex_);
    constexpr std::size_t kMost = 256;
    if (plans_.size() >= kMost) plans_.clear();
    std::shared_ptr<attune_plan>& plan = plans_[problem];
    if (plan == nullptr) {
      attune_plan* made = nullptr;
      if (const int code = attune_plan_create(problem.c_str(), nullptr, &made)) {
        plans_.erase(problem);
        return fail(code, "%s: %s", problem.c_str(), attune_last_error());
      }
      plan.reset(made, attune_plan_destroy);
    }
    out = plan;
    return ATTUNE_WRAPPED_OK;
  }

  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<attune_plan>> plans_;
};

struct Instance {
  const Tables* tables = nullptr;
  std::string folder;
  FileBytes constants;
  Plans plans;
};

inline int load_constants(Instance& instance) {
  const char* bytes = nullptr;
  if (instance.tables->constants.bytes == 0) return ATTUNE_WRAPPED_OK;
  return image_bytes(instance.folder, instance.tables->constants, instance.constants, &bytes);
}

// Nobody writes through it.
inline char* constants_of(const Instance& instance) {
  const char* embedded = instance.tables->constants.embedded;
  return embedded != nullptr ? const_cast<char*>(embedded) : instance.constants.get();
}

inline attune_tensor view_of(void* data, int dtype, int rank, const std::int64_t* shape,
                             const std::int64_t* strides) {
  attune_tensor view{};
  view.data = data;
  view.dtype = dtype;
  view.rank = rank;
  for (int axis = 0; axis < rank; ++axis) {
    view.shape[axis] = shape[axis];
    view.strides[axis] = strides[axis];
  }
  return view;
}

// " q_strides=..." where a dimension of more than one element is not where a row-major tensor has it.
inline std::string strides_text(const char* name, const attune_tensor& view) {
  std::int64_t expected = 1;
  bool contiguous = true;
  for (int axis = 3; axis >= 0; --axis) {
    contiguous = contiguous && (view.shape[axis] <= 1 || view.strides[axis] == expected);
    expected *= view.shape[axis] > 0 ? view.shape[axis] : 1;
  }
  if (contiguous) return {};
  char text[128];
  std::snprintf(text, sizeof(text), " %s_strides=%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64,
                name, view.strides[0], view.strides[1], view.strides[2], view.strides[3]);
  return text;
}

}  // namespace attune::wrapped
