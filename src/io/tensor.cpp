#include "io/tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/no_throw.h"

namespace attune {

TensorView Tensor::view() const {
  TensorView result;
  if (shape.size() > static_cast<std::size_t>(kMaxRank)) return result;
  result.data = const_cast<std::byte*>(data.data());  // see TensorView::data
  result.dtype = dtype;
  result.rank = rank();
  std::copy(shape.begin(), shape.end(), result.shape.begin());
  result.strides = contiguous_strides(result.shape, result.rank);
  return result;
}

Expected<std::size_t> byte_size(std::span<const std::int64_t> shape, DType dtype) {
  if (shape.size() > kMaxFileRank) {
    return Status(Code::unsupported, fmt::format("the shape has {} dimensions, the limit is {}",
                                                 shape.size(), kMaxFileRank));
  }
  auto product = static_cast<std::int64_t>(size_of(dtype));
  bool none = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) {
      return Status(Code::invalid_argument,
                    fmt::format("shape {} has the negative extent {}", shape_text(shape), extent));
    }
    none = none || extent == 0;
    if (__builtin_mul_overflow(product, std::max<std::int64_t>(extent, 1), &product)) {
      return Status(Code::invalid_argument, fmt::format("shape {} of {} is more than 2^63-1 bytes",
                                                        shape_text(shape), to_string(dtype)));
    }
  }
  return none ? std::size_t{0} : static_cast<std::size_t>(product);
}

Expected<Tensor> make_tensor(std::string name, DType dtype, std::vector<std::int64_t> shape) {
  return no_throw([&]() -> Expected<Tensor> {
    auto bytes = byte_size(shape, dtype);
    if (!bytes.ok()) return bytes.status();
    Tensor tensor{std::move(name), dtype, std::move(shape), {}};
    tensor.data.resize(*bytes);
    return tensor;
  });
}

Status check_consistent(const Tensor& tensor) {
  const auto bytes = byte_size(tensor.shape, tensor.dtype);
  if (!bytes.ok()) {
    return {bytes.status().code(),
            fmt::format("tensor {}: {}", in_quotes(tensor.name), bytes.status().message())};
  }
  if (*bytes != tensor.data.size()) {
    return {Code::invalid_argument,
            fmt::format("tensor {} holds {} bytes, but its shape {} of {} takes {}",
                        in_quotes(tensor.name), tensor.data.size(), shape_text(tensor.shape),
                        to_string(tensor.dtype), *bytes)};
  }
  return {};
}

std::string shape_text(std::span<const std::int64_t> shape) {
  constexpr std::size_t kShown = 8;
  std::string text =
      fmt::format("[{}", fmt::join(shape.first(std::min(shape.size(), kShown)), ", "));
  text += shape.size() > kShown ? ", ...]" : "]";
  return text;
}

void normalize_booleans(Tensor& tensor) {
  if (tensor.dtype != DType::boolean) return;
  for (std::byte& byte : tensor.data) byte = byte != std::byte{0} ? std::byte{1} : std::byte{0};
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kShown = 64;
  std::size_t end = std::min(text.size(), kShown);
  // Not in the middle of a UTF-8 sequence, whose later bytes are all 10xxxxxx.
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
    --end;
  }
  const nlohmann::json shown = std::string(text.substr(0, end)) + (end < text.size() ? "..." : "");
  return shown.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace attune
