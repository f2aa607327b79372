// Arguments against their Problem: one pass over the table of tensors, then the contents of the
// integer ones. Allocates only to report a refusal.
#include "problem/check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "problem/lengths.h"
#include "problem/shapes.h"
#include "problem/strides.h"

namespace attune {
namespace {

Status refuse(std::string message) { return {Code::invalid_argument, std::move(message)}; }

std::string list(const Extents& values, int rank) {
  return fmt::format("{}", fmt::join(values.begin(), values.begin() + rank, ", "));
}

bool is_attention_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

Status check_dtype_and_shape(const TensorSpec& spec, const TensorView& view) {
  if (view.rank != spec.rank) {
    return refuse(fmt::format("{} has {} dimensions, but the problem expects {}: {} = [{}]",
                              spec.name, view.rank, spec.rank, spec.dims,
                              list(spec.shape, spec.rank)));
  }
  const bool right = spec.any_float ? is_attention_float(view.dtype) : view.dtype == spec.dtype;
  if (!right) {
    return refuse(fmt::format("{} has dtype {}, but the problem expects {}", spec.name,
                              to_string(view.dtype),
                              spec.any_float ? "f32, f16 or bf16" : to_string(spec.dtype)));
  }
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(spec.rank); ++axis) {
    if (view.shape[axis] == spec.shape[axis]) continue;
    return refuse(fmt::format("{} has shape [{}], but the problem expects {} = [{}]", spec.name,
                              list(view.shape, view.rank), spec.dims, list(spec.shape, spec.rank)));
  }
  return {};
}

Status check_strides(const TensorSpec& spec, const TensorView& view) {
  if (spec.strides != nullptr) {
    const Extents wanted = resolve_strides(spec.shape, *spec.strides, spec.rank);
    if (!same_strides(spec.shape, view.strides, wanted, spec.rank)) {
      std::string message = fmt::format("{} has strides ({}), but the problem says ({})", spec.name,
                                        list(view.strides, view.rank), list(wanted, spec.rank));
      if (*spec.strides == Problem::Strides{}) {
        message += fmt::format(", contiguous, as it has no {}_strides", spec.name);
      }
      return refuse(std::move(message));
    }
  }
  if (!reach_of(view.shape, view.strides, view.rank,
                static_cast<std::int64_t>(size_of(view.dtype)))) {
    return refuse(fmt::format("{} with strides ({}) over shape [{}] reaches past 2^63 bytes",
                              spec.name, list(view.strides, view.rank),
                              list(view.shape, view.rank)));
  }
  return {};
}

Status check_output(const TensorSpec& spec, const TensorView& view) {
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(view.rank); ++axis) {
    if (view.shape[axis] > 1 && view.strides[axis] < 0) {
      return refuse(fmt::format(
          "{} has strides ({}): an output can't have a negative stride (only inputs can)",
          spec.name, list(view.strides, view.rank)));
    }
  }
  if (overlaps_itself(view.shape, view.strides, view.rank)) {
    return refuse(fmt::format(
        "{} has strides ({}) over shape [{}], so that its elements overlap each other; an output "
        "needs every element in a place of its own",
        spec.name, list(view.strides, view.rank), list(view.shape, view.rank)));
  }
  return {};
}

Status check_pointer(const TensorSpec& spec, const TensorView& view) {
  if (view.elements() == 0) return {};  // never read nor written
  if (view.data == nullptr) {
    return refuse(
        fmt::format("{} has no data: its pointer is null, but its shape [{}] has {} "
                    "elements",
                    spec.name, list(view.shape, view.rank), view.elements()));
  }
  const std::size_t size = size_of(view.dtype);
  const auto address = reinterpret_cast<std::uintptr_t>(view.data);
  if (address % size != 0) {
    return refuse(
        fmt::format("{} starts at address {:#x}, which is not a multiple of the {} bytes "
                    "of {}",
                    spec.name, address, size, to_string(view.dtype)));
  }
  return {};
}

// What a CUDA kernel was chosen for.
Status check_alignment(const Problem& problem, const TensorSpec& spec, const TensorView& view) {
  if (!spec.aligned || view.elements() == 0) return {};
  const auto address = reinterpret_cast<std::uintptr_t>(view.data);
  if (address % static_cast<std::uintptr_t>(problem.alignment) == 0) return {};
  return refuse(fmt::format(
      "{} starts at address {:#x}, which is not a multiple of the {} bytes that the problem "
      "promises; move it, or say align={}",
      spec.name, address, problem.alignment, address & (~address + 1)));
}

// What it promises, beside the check of its extents.
Status check_bias(const TensorView& bias) {
  if (bias_is_aligned(bias)) return {};
  return refuse(fmt::format(
      "bias starts at address {:#x} with strides [{}] in elements of {}, but the problem promises "
      "(bias_aligned) rows that start at multiples of 16 bytes, neighbouring keys and positive "
      "strides; lay it out so, or leave the promise out",
      reinterpret_cast<std::uintptr_t>(bias.data), fmt::join(bias.strides, ", "),
      to_string(bias.dtype)));
}

Status check_dropout_state(const Problem& problem, const TensorView& state) {
  if (state.empty()) return {};
  if (problem.device != Device::cuda) {
    return refuse("dropout_state was given, but only device=cuda reads one; use dropout_seed");
  }
  if (problem.dropout == 0) {
    return refuse("dropout_state was given, but the problem has no dropout");
  }
  if (state.rank != 1 || state.dtype != DType::i64 || state.shape[0] != 2 ||
      state.strides[0] != 1 || state.data == nullptr) {
    return refuse(fmt::format("dropout_state is {}; it takes i64[2], (seed, offset), contiguous",
                              to_string(state)));
  }
  return {};
}

Status check_tensor(const TensorSpec& spec, const TensorView& view) {
  if (spec.role == Role::unused) {
    if (view.empty()) return {};
    return refuse(fmt::format("{} was given, but {}", spec.name, spec.why_unused));
  }
  if (view.empty()) {
    return refuse(fmt::format("{} is missing: the problem expects {}{} = [{}]", spec.name,
                              to_string(spec.dtype), spec.dims, list(spec.shape, spec.rank)));
  }
  if (Status status = check_dtype_and_shape(spec, view); !status.ok()) return status;
  if (Status status = check_strides(spec, view); !status.ok()) return status;
  if (spec.role == Role::output) {
    if (Status status = check_output(spec, view); !status.ok()) return status;
  }
  return check_pointer(spec, view);
}

// Bytes [begin, end) between the first and the last element.
struct Range {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
};

// Precondition: check_tensor() passed and the view has elements.
Range range_of(const TensorView& view) {
  const auto size = static_cast<std::int64_t>(size_of(view.dtype));
  const Reach reach = *reach_of(view.shape, view.strides, view.rank, size);
  const auto address = reinterpret_cast<std::uintptr_t>(view.data);
  return {.begin = address + static_cast<std::uintptr_t>(reach.first * size),
          .end = address + static_cast<std::uintptr_t>((reach.last + 1) * size)};
}

// Whether nothing but the tensor's own elements lies in its range. Precondition as range_of()'s.
bool is_dense(const TensorView& view, const Range& range) {
  const std::uintptr_t bytes = range.end - range.begin;
  return bytes == static_cast<std::uintptr_t>(view.elements()) * size_of(view.dtype) &&
         !overlaps_itself(view.shape, view.strides, view.rank);
}

// An output that shares its first element with another tensor, or a range when both are dense.
// Interleaved views of one buffer, such as q, k and v slices of [B, S, 3, H, D], share a range
// without sharing an element, and are fine.
Status check_aliases(const std::array<TensorSpec, kTensorCount>& specs,
                     const Arguments& arguments) {
  std::array<Range, kTensorCount> ranges{};  // empty: unused, or without elements
  for (std::size_t n = 0; n < specs.size(); ++n) {
    if (specs[n].role == Role::unused) continue;
    const TensorView& view = arguments.*specs[n].view;
    if (view.elements() > 0) ranges[n] = range_of(view);
  }
  for (std::size_t n = 0; n < specs.size(); ++n) {
    const Range& mine = ranges[n];
    if (specs[n].role != Role::output || mine.begin == mine.end) continue;
    const TensorView& output = arguments.*specs[n].view;
    for (std::size_t m = 0; m < specs.size(); ++m) {
      const Range& theirs = ranges[m];
      // A pair of outputs is looked at once.
      if (m == n || theirs.begin == theirs.end || (specs[m].role == Role::output && m < n))
        continue;
      const TensorView& other = arguments.*specs[m].view;
      const bool share = mine.begin < theirs.end && theirs.begin < mine.end;
      if (output.data == other.data ||
          (share && is_dense(output, mine) && is_dense(other, theirs))) {
        return refuse(fmt::format("the output {} overlaps the {} {} in memory", specs[n].name,
                                  specs[m].role == Role::output ? "output" : "input",
                                  specs[m].name));
      }
    }
  }
  return {};
}

// Reads an i32 tensor whatever its strides.
std::int64_t at(const TensorView& view, std::int64_t i, std::int64_t j = 0) {
  return static_cast<const std::int32_t*>(view.data)[i * view.strides[0] + j * view.strides[1]];
}

struct Packed {
  const char* name;  // of the tensor
  const char* size;  // of the longest length
  const char* total_name;
  std::int64_t longest, total;
};

Status check_cu_seqlens(const TensorView& view, std::int64_t b, const Packed& packed) {
  if (at(view, 0) != 0) {
    return refuse(
        fmt::format("{}[0] = {}, but the first sequence starts at 0", packed.name, at(view, 0)));
  }
  for (std::int64_t n = 0; n < b; ++n) {
    const std::int64_t begin = at(view, n);
    const std::int64_t end = at(view, n + 1);
    if (end < begin) {
      return refuse(
          fmt::format("{0}[{1}] = {2} is below {0}[{3}] = {4}: the ends of the sequences "
                      "never decrease",
                      packed.name, n + 1, end, n, begin));
    }
    if (end > packed.total) {
      return refuse(fmt::format("{}[{}] = {} is past the end: {} = {}", packed.name, n + 1, end,
                                packed.total_name, packed.total));
    }
    if (end - begin > packed.longest) {
      return refuse(
          fmt::format("{} gives sequence {} a length of {}, but the problem's longest is "
                      "{} = {}",
                      packed.name, n, end - begin, packed.size, packed.longest));
    }
  }
  return {};
}

Status check_key_lengths(const Problem& p, const Arguments& a) {
  for (std::int64_t b = 0; b < p.b; ++b) {
    const std::int64_t length = at(a.key_lengths, b);
    if (length < 0) {
      return refuse(fmt::format("key_lengths[{}] = {} is negative", b, length));
    }
    if (!p.packed_k && length > p.sk) {
      return refuse(fmt::format("key_lengths[{}] = {} is more than the sk = {} keys there are", b,
                                length, p.sk));
    }
    if (p.packed_k) {
      const std::int64_t block = at(a.cu_seqlens_k, b + 1) - at(a.cu_seqlens_k, b);
      if (length > block) {
        return refuse(
            fmt::format("key_lengths[{0}] = {1} is more than the {2} keys that "
                        "cu_seqlens_k gives sequence {0}",
                        b, length, block));
      }
    }
  }
  return {};
}

// Only the entries that a sequence's own length reaches are ever read, here as in the kernels.
Status check_page_table(const Problem& p, const Arguments& a) {
  for (std::int64_t b = 0; b < p.b; ++b) {
    const std::int64_t keys = sequence(p, a, b).sk;
    const std::int64_t used = (keys + p.page_size - 1) / p.page_size;
    for (std::int64_t n = 0; n < used; ++n) {
      const std::int64_t page = at(a.page_table, b, n);
      if (page < 0 || page >= p.pages) {
        return refuse(fmt::format("page_table[{}, {}] = {} is out of range: there are {} pages", b,
                                  n, page, p.pages));
      }
    }
  }
  return {};
}

Status check_contents(const Problem& p, const Arguments& a) {
  if (p.device == Device::cuda) return {};  // nothing behind a pointer is read
  if (p.packed_q) {
    const Packed packed{"cu_seqlens_q", "sq", "total_q", p.sq, p.total_q};
    if (Status status = check_cu_seqlens(a.cu_seqlens_q, p.b, packed); !status.ok()) return status;
  }
  if (p.packed_k) {
    const Packed packed{"cu_seqlens_k", "sk", "total_k", p.sk, p.total_k};
    if (Status status = check_cu_seqlens(a.cu_seqlens_k, p.b, packed); !status.ok()) return status;
  }
  if (p.key_lengths) {
    if (Status status = check_key_lengths(p, a); !status.ok()) return status;
  }
  if (p.page_size > 0) return check_page_table(p, a);
  return {};
}

}  // namespace

Status check_arguments(const Problem& problem, const Arguments& arguments) {
  const auto specs = tensors_of(problem);
  for (const TensorSpec& spec : specs) {
    const TensorView& view = arguments.*spec.view;
    if (Status status = check_tensor(spec, view); !status.ok()) return status;
    if (problem.device != Device::cuda) continue;
    if (Status status = check_alignment(problem, spec, view); !status.ok()) return status;
    if (spec.view != &Arguments::bias || !problem.bias.aligned) continue;
    if (Status status = check_bias(view); !status.ok()) return status;
  }
  if (Status status = check_aliases(specs, arguments); !status.ok()) return status;
  if (Status status = check_dropout_state(problem, arguments.dropout_state); !status.ok()) {
    return status;
  }
  return check_contents(problem, arguments);
}

Status check(const Problem& problem, const Arguments& arguments) {
  if (Status status = validate(problem); !status.ok()) return status;
  return check_arguments(problem, arguments);
}

}  // namespace attune
