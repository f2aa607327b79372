// The rules between the values of a Problem. Each refusal names the value, the limit and the thing.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "problem/shapes.h"
#include "problem/strides.h"

namespace attune {
namespace {

Status refuse(std::string message) { return {Code::invalid_argument, std::move(message)}; }

// An enum that came from an integer (the C ABI) may hold anything.
template <typename E>
bool within(E value, E last) {
  return value <= last;
}

Status check_enums(const Problem& p) {
  const auto bad = [](const char* name, auto value) {
    return refuse(
        fmt::format("{} = {} is not one of its named values", name, static_cast<int>(value)));
  };
  if (!within(p.kind, Kind::backward)) return bad("kind", p.kind);
  if (!within(p.device, Device::cuda)) return bad("device", p.device);
  if (!within(p.mask.diagonal, Diagonal::bottom_right)) {
    return bad("mask.diagonal", p.mask.diagonal);
  }
  if (!within(p.bias.kind, BiasKind::additive)) return bad("bias.kind", p.bias.kind);
  if (!within(p.alibi, PerHead::batch_head)) return bad("alibi", p.alibi);
  if (!within(p.dropout_stream, DropoutStream::fa2)) {
    return bad("dropout_stream", p.dropout_stream);
  }
  if (!within(p.lse, LseLayout::padded32)) return bad("lse", p.lse);
  return {};
}

Status check_dtype(const Problem& p) {
  if (p.dtype == DType::f8e4m3) {
    if (p.kind == Kind::forward) return {};
    return refuse("dtype = f8e4m3 has no backward pass: q, k, v and o of one are f32, f16 or bf16");
  }
  if (p.descale) {
    return refuse(
        fmt::format("descale is set, but dtype = {}: only q, k and v of f8e4m3 have scales",
                    to_string(p.dtype)));
  }
  if (p.dtype == DType::f32 || p.dtype == DType::f16 || p.dtype == DType::bf16) return {};
  return refuse(
      fmt::format("dtype = {} is not supported: q, k, v and o are f32, f16 or bf16, or, forward, "
                  "q, k and v are "
                  "f8e4m3",
                  to_string(p.dtype)));
}

Status check_sizes(const Problem& p) {
  struct Size {
    const char* name;
    std::int64_t value, least, most;
    const char* meaning;
  };
  const std::array sizes = {
      Size{"b", p.b, 0, kMaxCount, "sequences"},
      Size{"hq", p.hq, 1, kMaxCount, "query heads"},
      Size{"hkv", p.hkv, 1, kMaxCount, "KV heads"},
      Size{"sq", p.sq, 0, kMaxLength, "queries a sequence"},
      Size{"sk", p.sk, 0, kMaxLength, "keys a sequence"},
      Size{"d", p.d, 0, kMaxHeadDim, "numbers a query or key"},
      Size{"dv", p.dv, 0, kMaxHeadDim, "numbers a value"},
      Size{"total_q", p.total_q, 0, kMaxCount, "packed query tokens"},
      Size{"total_k", p.total_k, 0, kMaxCount, "packed key tokens"},
      Size{"page_size", p.page_size, 0, kMaxLength, "keys a page"},
      Size{"pages", p.pages, 0, kMaxCount, "pages"},
  };
  for (const Size& size : sizes) {
    if (size.value < size.least) {
      return refuse(fmt::format("{} = {} is too small: {} start at {}", size.name, size.value,
                                size.meaning, size.least));
    }
    if (size.value > size.most) {
      return refuse(fmt::format("{} = {} is too large: at most {} {}", size.name, size.value,
                                size.most, size.meaning));
    }
  }
  if (p.hq % p.hkv != 0) {
    return refuse(fmt::format(
        "hq = {} is not a multiple of hkv = {}; each KV head serves hq / hkv query heads", p.hq,
        p.hkv));
  }
  return {};
}

// The arithmetic is float32: a value must survive the conversion.
Status check_numbers(const Problem& p) {
  if (p.scale) {
    if (!std::isfinite(*p.scale) || std::abs(*p.scale) > FLT_MAX) {
      return refuse(fmt::format("scale = {} is not a finite float32 number", *p.scale));
    }
  } else if (p.d == 0) {
    return refuse("d = 0 leaves the default scale 1 / sqrt(d) undefined: give a scale");
  }
  if (!std::isfinite(p.softcap) || p.softcap < 0 || p.softcap > FLT_MAX) {
    return refuse(fmt::format(
        "softcap = {} is not allowed: it is 0 (none) or a positive finite float32 number",
        p.softcap));
  }
  if (p.softcap > 0 && p.softcap < FLT_MIN) {
    return refuse(fmt::format("softcap = {} is below {}, the smallest normal float32 number",
                              p.softcap, FLT_MIN));
  }
  if (!(p.dropout >= 0 && p.dropout < 1)) {
    return refuse(fmt::format(
        "dropout = {} is not a probability to drop: it must be at least 0 and below 1", p.dropout));
  }
  if (static_cast<float>(p.dropout) >= 1.0F) {
    return refuse(
        fmt::format("dropout = {} rounds to 1 in float32 and would drop everything", p.dropout));
  }
  if (p.dropout_stream == DropoutStream::curand) return {};
  if (p.dropout == 0) {
    return refuse("dropout_stream = fa2 is set, but the problem has no dropout");
  }
  constexpr double kStep = 1.0 / 256;
  if (p.dropout < kStep || p.dropout > 1 - kStep) {
    return refuse(
        fmt::format("dropout = {} is out of reach of dropout_stream = fa2, whose bytes drop from "
                    "1/256 to 255/256 of all elements: the stream curand takes any",
                    p.dropout));
  }
  return {};
}

Status check_mask(const Mask& mask) {
  if (mask.offset > kMaxOffset || mask.offset < -kMaxOffset) {
    return refuse(
        fmt::format("mask.offset = {} is out of range: at most 2^62 either way", mask.offset));
  }
  for (const auto& [name, side] : {std::pair{"left", mask.left}, std::pair{"right", mask.right}}) {
    if (side < -1) {
      return refuse(fmt::format(
          "mask.{} = {} is not a window side: it is a number of keys, or -1 for no limit", name,
          side));
    }
  }
  return {};
}

Status check_bias(const Problem& p) {
  const Bias& bias = p.bias;
  switch (bias.kind) {
    case BiasKind::none:
      if (bias.grad) return refuse("bias.grad is set, but the problem has no bias");
      if (bias.aligned) return refuse("bias.aligned is set, but the problem has no bias");
      if (bias != Bias{}) {
        return refuse("bias has a dtype or broadcast dimensions, but its kind is none");
      }
      return {};
    case BiasKind::boolean:
      if (bias.dtype != DType::boolean) {
        return refuse(fmt::format("a boolean bias has dtype bool, not {}", to_string(bias.dtype)));
      }
      if (bias.grad) return refuse("bias.grad is set, but a boolean bias has no gradient");
      return {};
    case BiasKind::additive:
      if (bias.dtype != DType::f32 && bias.dtype != DType::f16 && bias.dtype != DType::bf16) {
        return refuse(
            fmt::format("an additive bias is f32, f16 or bf16, not {}", to_string(bias.dtype)));
      }
      return {};
  }
  return {};
}

Status check_gradients(const Problem& p) {
  struct Gradient {
    const char* name;
    bool asked, present;
    const char* thing;
  };
  const std::array gradients = {
      Gradient{"bias.grad", p.bias.grad, p.bias.kind != BiasKind::none, "bias"},
      Gradient{"sink_grad", p.sink_grad, p.sink, "sink"},
      Gradient{"alibi_grad", p.alibi_grad, p.alibi != PerHead::none, "ALiBi"},
      Gradient{"lse_grad", p.lse_grad, p.lse != LseLayout::none, "LSE"},
  };
  if (p.kind == Kind::backward && p.lse == LseLayout::none) {
    return refuse("backward reads the LSE: say lse or lse=padded32");
  }
  for (const Gradient& gradient : gradients) {
    if (!gradient.asked) continue;
    if (p.kind == Kind::forward) {
      return refuse(fmt::format("{} is set, but the problem is a forward one", gradient.name));
    }
    if (!gradient.present) {
      return refuse(
          fmt::format("{} is set, but the problem has no {}", gradient.name, gradient.thing));
    }
  }
  return {};
}

Status check_layout(const Problem& p) {
  if (!p.packed_q && p.total_q != 0) {
    return refuse(fmt::format("total_q = {}, but the queries are not packed", p.total_q));
  }
  if (!p.packed_k && p.total_k != 0) {
    return refuse(fmt::format("total_k = {}, but the keys are not packed", p.total_k));
  }
  if (p.page_size == 0 && p.pages != 0) {
    return refuse(fmt::format("pages = {}, but page_size is 0 (not paged)", p.pages));
  }
  if (p.page_size > 0 && p.packed_k) {
    return refuse(fmt::format(
        "page_size = {}, but the keys are packed: they are either packed or paged", p.page_size));
  }
  return {};
}

// Bytes of a row-major tensor; false when they don't fit 63 bits. Extents of 0 count as 1, as they
// do for the strides.
bool fits(const TensorSpec& tensor) {
  auto bytes = static_cast<std::int64_t>(size_of(tensor.dtype));
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(tensor.rank); ++axis) {
    const std::int64_t extent = std::max<std::int64_t>(tensor.shape[axis], 1);
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return false;
  }
  return true;
}

Status check_strides(const TensorSpec& tensor) {
  const Problem::Strides& strides = *tensor.strides;
  if (strides == Problem::Strides{}) return {};  // contiguous
  const auto words = [&] { return fmt::format("({})", fmt::join(strides, ", ")); };
  if (!reach_of(tensor.shape, strides, tensor.rank,
                static_cast<std::int64_t>(size_of(tensor.dtype)))) {
    return refuse(fmt::format("{}_strides = {} reach past 2^63 bytes over the shape [{}]",
                              tensor.name, words(), fmt::join(tensor.shape, ", ")));
  }
  if (tensor.role != Role::output) return {};
  for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    if (tensor.shape[axis] > 1 && strides[axis] < 0) {
      return refuse(fmt::format("{}_strides = {}: an output can't have a negative stride",
                                tensor.name, words()));
    }
  }
  if (overlaps_itself(tensor.shape, strides, tensor.rank)) {
    return refuse(fmt::format("{}_strides = {} make the output overlap itself over the shape [{}]",
                              tensor.name, words(), fmt::join(tensor.shape, ", ")));
  }
  return {};
}

Status check_alignment(const Problem& p) {
  constexpr std::int64_t kMostAlignment = 256;  // what CUDA's allocators give
  if (p.alignment >= 1 && p.alignment <= kMostAlignment &&
      std::has_single_bit(static_cast<std::uint64_t>(p.alignment))) {
    return {};
  }
  return refuse(fmt::format("align = {} bytes is not a power of two in 1 .. {}", p.alignment,
                            kMostAlignment));
}

Status check_tensors(const Problem& p) {
  for (const TensorSpec& tensor : tensors_of(p)) {
    if (tensor.role == Role::unused) continue;
    if (!fits(tensor)) {
      return refuse(
          fmt::format("{} {} = [{}] is larger than 2^63 bytes", tensor.name, tensor.dims,
                      fmt::join(tensor.shape.begin(), tensor.shape.begin() + tensor.rank, ", ")));
    }
    if (tensor.strides != nullptr) {
      if (Status status = check_strides(tensor); !status.ok()) return status;
    }
  }
  std::int64_t index = p.b;
  if (p.dropout > 0 &&
      (__builtin_mul_overflow(index, p.hq, &index) || __builtin_mul_overflow(index, p.sq, &index) ||
       __builtin_mul_overflow(index, p.sk, &index))) {
    return refuse(
        fmt::format("dropout numbers the elements b * hq * sq * sk = {} * {} * {} * {}, past 2^63",
                    p.b, p.hq, p.sq, p.sk));
  }
  return {};
}

}  // namespace

double Problem::effective_scale() const {
  return scale.value_or(1.0 / std::sqrt(static_cast<double>(d)));
}

DType Problem::o_dtype() const { return dtype == DType::f8e4m3 ? DType::bf16 : dtype; }

Status validate(const Problem& problem) {
  for (Status status :
       {check_enums(problem), check_dtype(problem), check_sizes(problem), check_numbers(problem),
        check_mask(problem.mask), check_bias(problem), check_gradients(problem),
        check_layout(problem), check_alignment(problem)}) {
    if (!status.ok()) return status;
  }
  return check_tensors(problem);
}

}  // namespace attune
