#include "io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#include "io/file.h"
#include "io/no_throw.h"
#include "io/safetensors_header.h"

namespace attune {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian and are read without swapping bytes");

constexpr std::uint64_t kLengthBytes = 8;          // of the header's length, before the header
constexpr std::uint64_t kMaxHeader = 100'000'000;  // the format's own limit

Expected<Safetensors> parse(const ByteSource& source) {
  if (source.size < kLengthBytes) {
    return Status(Code::io_error,
                  fmt::format("is cut off: {} bytes, and a .safetensors file begins "
                              "with 8 bytes of header length",
                              source.size));
  }
  std::uint64_t length = 0;
  Status status = source.read_at(0, std::as_writable_bytes(std::span(&length, 1)));
  if (!status.ok()) return status;
  if (length > kMaxHeader) {
    return Status(Code::io_error,
                  fmt::format("claims a header of {} bytes, the limit of the format is {}", length,
                              kMaxHeader));
  }
  if (length > source.size - kLengthBytes) {
    return Status(Code::io_error,
                  fmt::format("is cut off: the header is said to have {} bytes, but {} follow",
                              length, source.size - kLengthBytes));
  }
  std::string json(length, '\0');
  status = source.read_at(kLengthBytes, std::as_writable_bytes(std::span(json)));
  if (!status.ok()) return status;
  const std::uint64_t data_begin = kLengthBytes + length;
  auto header = parse_safetensors_header(json, source.size - data_begin);
  if (!header.ok()) return header.status();

  Safetensors result;
  result.metadata = std::move(header->metadata);
  result.tensors.reserve(header->entries.size());
  for (auto& entry : header->entries) {
    Tensor& tensor = result.tensors.emplace_back();
    tensor.name = std::move(entry.name);
    tensor.dtype = entry.dtype;
    tensor.shape = std::move(entry.shape);
    tensor.data.resize(entry.end - entry.begin);
    status = source.read_at(data_begin + entry.begin, tensor.data);
    if (!status.ok()) return status;
    normalize_booleans(tensor);
  }
  return result;
}

// A file as it will lie on the disk: what comes before the data, then the data of each tensor.
struct Layout {
  std::string head;
  std::vector<const Tensor*> tensors;
};

Expected<Layout> lay_out(std::span<const Tensor> tensors, const Metadata& metadata) {
  Layout layout;
  for (const Tensor& tensor : tensors) {
    if (Status status = check_consistent(tensor); !status.ok()) return status;
    layout.tensors.push_back(&tensor);
  }
  std::sort(layout.tensors.begin(), layout.tensors.end(),
            [](const Tensor* a, const Tensor* b) { return a->name < b->name; });

  SafetensorsHeader header{{}, metadata};
  std::uint64_t offset = 0;
  for (const Tensor* tensor : layout.tensors) {
    if (!header.entries.empty() && header.entries.back().name == tensor->name) {
      return Status(Code::invalid_argument, fmt::format("two tensors are called {}; the names in a "
                                                        ".safetensors file must differ",
                                                        in_quotes(tensor->name)));
    }
    const std::uint64_t begin = offset;
    offset += tensor->data.size();
    header.entries.push_back({tensor->name, tensor->dtype, tensor->shape, begin, offset});
  }
  auto json = format_safetensors_header(header);
  if (!json.ok()) return json.status();
  json->append((8 - json->size() % 8) % 8, ' ');
  if (json->size() > kMaxHeader) {
    return Status(Code::invalid_argument,
                  fmt::format("the header would have {} bytes, the limit of the format is {}",
                              json->size(), kMaxHeader));
  }
  const std::uint64_t length = json->size();
  layout.head.resize(kLengthBytes);
  std::memcpy(layout.head.data(), &length, kLengthBytes);
  layout.head += *json;
  return layout;
}

}  // namespace

Expected<Safetensors> parse_safetensors(std::span<const std::byte> bytes) {
  return no_throw([&] { return parse(memory_source(bytes)); });
}

Expected<AlignedBytes> format_safetensors(std::span<const Tensor> tensors,
                                          const Metadata& metadata) {
  return no_throw([&]() -> Expected<AlignedBytes> {
    const auto layout = lay_out(tensors, metadata);
    if (!layout.ok()) return layout.status();
    const auto head = std::as_bytes(std::span(layout->head));
    AlignedBytes bytes(head.begin(), head.end());
    for (const Tensor* tensor : layout->tensors) {
      bytes.insert(bytes.end(), tensor->data.begin(), tensor->data.end());
    }
    return bytes;
  });
}

Expected<Safetensors> read_safetensors(const std::filesystem::path& path) {
  return no_throw([&]() -> Expected<Safetensors> {
    const auto source = file_source(path);
    if (!source.ok()) return in_file(path, source.status());
    auto contents = no_throw([&] { return parse(*source); });
    if (!contents.ok()) return in_file(path, contents.status());
    return contents;
  });
}

Status write_safetensors(const std::filesystem::path& path, std::span<const Tensor> tensors,
                         const Metadata& metadata) {
  return no_throw([&]() -> Status {
    const auto layout = lay_out(tensors, metadata);
    if (!layout.ok()) return in_file(path, layout.status());
    std::vector<std::span<const std::byte>> parts = {std::as_bytes(std::span(layout->head))};
    for (const Tensor* tensor : layout->tensors) parts.emplace_back(tensor->data);
    return write_file(path, parts);
  });
}

}  // namespace attune
