#include "cli/random.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <random>
#include <string_view>
#include <utility>

#include "io/convert.h"
#include "problem/shapes.h"

namespace attune::cli {
namespace {

void set_i32(Tensor& tensor, std::size_t index, std::int64_t value) {
  const auto narrow = static_cast<std::int32_t>(value);
  std::memcpy(tensor.data.data() + index * sizeof narrow, &narrow, sizeof narrow);
}

// Sequences one after another, each of the longest length while tokens last.
void fill_cumulative(Tensor& tensor, std::int64_t longest, std::int64_t total) {
  const auto count = static_cast<std::size_t>(tensor.shape[0]);
  for (std::size_t i = 0; i < count; ++i) {
    // longest and i are below 2^31, so the product fits.
    set_i32(tensor, i, std::min(total, longest * static_cast<std::int64_t>(i)));
  }
}

void fill_integers(const Problem& problem, Tensor& tensor) {
  const std::size_t count = tensor.data.size() / sizeof(std::int32_t);
  if (tensor.name == "cu_seqlens_q") {
    fill_cumulative(tensor, problem.sq, problem.total_q);
  } else if (tensor.name == "cu_seqlens_k") {
    fill_cumulative(tensor, problem.sk, problem.total_k);
  } else if (tensor.name == "key_lengths") {
    for (std::size_t b = 0; b < count; ++b) {
      std::int64_t length = problem.sk;
      if (problem.packed_k) {
        const auto before = static_cast<std::int64_t>(b) * problem.sk;
        length = std::clamp<std::int64_t>(problem.total_k - before, 0, problem.sk);
      }
      set_i32(tensor, b, length);
    }
  } else if (tensor.name == "page_table" && problem.pages > 0) {
    for (std::size_t i = 0; i < count; ++i) {
      set_i32(tensor, i, static_cast<std::int64_t>(i) % problem.pages);
    }
  }
}

}  // namespace

Expected<Tensor> normal_tensor(std::string name, DType dtype, std::vector<std::int64_t> shape,
                               std::uint64_t seed) {
  auto tensor = make_tensor(std::move(name), DType::f32, std::move(shape));
  if (!tensor.ok()) return tensor.status();
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < tensor->data.size() / sizeof(float); ++i) {
    const float value = normal(engine);
    std::memcpy(tensor->data.data() + i * sizeof value, &value, sizeof value);
  }
  return dtype == DType::f32 ? std::move(tensor) : cast(*tensor, dtype);
}

Expected<Tensor> input_tensor(const TensorSpec& spec, std::vector<std::int64_t> shape,
                              std::uint64_t seed) {
  auto tensor = normal_tensor(spec.name, spec.dtype, std::move(shape), seed);
  const bool scales = spec.view == &Arguments::q_scale || spec.view == &Arguments::k_scale ||
                      spec.view == &Arguments::v_scale;
  if (!tensor.ok() || !scales) return tensor;
  for (std::size_t i = 0; i < tensor->data.size() / sizeof(float); ++i) {
    float value = 0;
    std::memcpy(&value, tensor->data.data() + i * sizeof value, sizeof value);
    value = std::exp2(std::clamp(value, -1.0F, 1.0F));
    std::memcpy(tensor->data.data() + i * sizeof value, &value, sizeof value);
  }
  return tensor;
}

Expected<std::vector<Tensor>> make_inputs(const Problem& problem, std::uint64_t seed,
                                          Arguments& arguments) {
  std::vector<Tensor> tensors;
  tensors.reserve(kTensorCount);
  for (const TensorSpec& spec : tensors_of(problem)) {
    const std::string_view name = spec.name;
    if (spec.role != Role::input || name == "o" || name == "lse") continue;
    std::vector<std::int64_t> shape(spec.shape.begin(), spec.shape.begin() + spec.rank);
    const bool is_float = spec.dtype != DType::i32 && spec.dtype != DType::boolean;
    auto tensor = is_float ? input_tensor(spec, std::move(shape), seed++)
                           : make_tensor(spec.name, spec.dtype, std::move(shape));
    if (!tensor.ok()) return tensor.status();
    if (spec.dtype == DType::i32) fill_integers(problem, *tensor);
    // A boolean bias of ones masks nothing out.
    if (spec.dtype == DType::boolean) {
      std::fill(tensor->data.begin(), tensor->data.end(), std::byte{1});
    }
    if (spec.strides != nullptr && *spec.strides != Problem::Strides{} &&
        *spec.strides != contiguous_strides(spec.shape, spec.rank)) {
      return Status(Code::unsupported,
                    fmt::format("{} has strides of its own; only contiguous tensors are made here",
                                spec.name));
    }
    tensors.push_back(*std::move(tensor));
    arguments.*spec.view = tensors.back().view();
  }
  return tensors;
}

}  // namespace attune::cli
