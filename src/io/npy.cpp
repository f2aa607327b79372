#include "io/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "io/convert.h"
#include "io/file.h"
#include "io/no_throw.h"

namespace attune {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian and are read without swapping bytes");

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kAlignment = 64;           // of the data in files that are written
constexpr std::uint64_t kMaxHeader = 1U << 20U;  // a plain array's takes about 100 bytes

struct DTypeName {
  DType dtype;
  std::string_view text;
};
constexpr std::array kDTypeNames = {
    DTypeName{DType::f32, "<f4"},     DTypeName{DType::f16, "<f2"}, DTypeName{DType::f64, "<f8"},
    DTypeName{DType::boolean, "|b1"}, DTypeName{DType::i32, "<i4"}, DTypeName{DType::i64, "<i8"},
    DTypeName{DType::u8, "|u1"},
};

Expected<DType> dtype_from(std::string_view descr) {
  for (const auto& name : kDTypeNames) {
    if (descr == name.text) return name.dtype;
  }
  if (descr.starts_with('>')) {
    return Status(
        Code::unsupported,
        fmt::format("the array is big-endian (dtype {0}); save it little-endian, in Python "
                    "a.astype(a.dtype.newbyteorder('<'))",
                    in_quotes(descr)));
  }
  std::string message = fmt::format("dtype {} is not read; the ones read are ", in_quotes(descr));
  for (const auto& name : kDTypeNames) {
    message += fmt::format("{}{}", name.text, &name == &kDTypeNames.back() ? "" : " ");
  }
  if (descr.ends_with("V2")) {
    message +=
        ". If these are bfloat16 values: .npy has no dtype for them; save float32, or "
        ".safetensors";
  }
  if (descr.ends_with("V1") || descr.ends_with("f1")) {
    message +=
        ". If these are float8 values: .npy has no dtype for them; save float32, or .safetensors";
  }
  return Status(Code::unsupported, std::move(message));
}

struct Header {
  DType dtype = DType::f32;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// Reads the header's Python literal, {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }.
// Only what an array of plain numbers can have there is taken, so nothing nests and nothing recurses.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  Expected<Header> parse() {
    Header header;
    if (Status status = parse_dict(header); !status.ok()) return status;
    return header;
  }

 private:
  Status parse_dict(Header& header) {
    if (!take('{')) return malformed("'{'");
    bool has_descr = false;
    bool has_order = false;
    bool has_shape = false;
    while (!take('}')) {
      const auto key = take_string();
      if (!key) return malformed("a quoted key or '}'");
      if (!take(':')) return malformed("':'");
      Status status;
      if (*key == "descr" && !std::exchange(has_descr, true)) {
        status = parse_descr(header.dtype);
      } else if (*key == "fortran_order" && !std::exchange(has_order, true)) {
        status = parse_bool(header.fortran_order);
      } else if (*key == "shape" && !std::exchange(has_shape, true)) {
        status = parse_shape(header.shape);
      } else {
        status = {Code::io_error,
                  fmt::format("the header has the key {}, which is unknown or there twice; a .npy "
                              "header has 'descr', 'fortran_order' and 'shape', once each",
                              in_quotes(*key))};
      }
      if (!status.ok()) return status;
      if (!take(',') && peek() != '}') return malformed("',' or '}'");
    }
    skip_space();
    if (pos_ != text_.size()) return malformed("the end of the header");
    const std::string_view missing = !has_descr   ? "descr"
                                     : !has_order ? "fortran_order"
                                     : !has_shape ? "shape"
                                                  : "";
    if (!missing.empty()) {
      return {Code::io_error, fmt::format("the header has no key '{}'", missing)};
    }
    return {};
  }

  Status parse_descr(DType& dtype) {
    if (peek() == '[' || peek() == '(') {
      return {Code::unsupported, "the array has a structured dtype; only plain numbers are read"};
    }
    const auto text = take_string();
    if (!text) return malformed("a quoted dtype");
    const auto found = dtype_from(*text);
    if (!found.ok()) return found.status();
    dtype = *found;
    return {};
  }

  Status parse_bool(bool& value) {
    if (take_word("True")) {
      value = true;
    } else if (take_word("False")) {
      value = false;
    } else {
      return malformed("True or False");
    }
    return {};
  }

  Status parse_shape(std::vector<std::int64_t>& shape) {
    if (!take('(')) return malformed("'(' of the shape");
    bool comma = true;
    while (!take(')')) {
      if (!comma) return malformed("',' or ')' in the shape");
      if (shape.size() == kMaxFileRank) {
        return {Code::unsupported,
                fmt::format("the shape has more than {} dimensions", kMaxFileRank)};
      }
      skip_space();
      std::int64_t extent = 0;
      const char* const first = text_.data() + pos_;
      const auto [end, error] = std::from_chars(first, text_.data() + text_.size(), extent);
      if (error == std::errc::result_out_of_range) {
        return {Code::io_error,
                fmt::format("the shape has the extent {}, past 2^63-1",
                            in_quotes({first, static_cast<std::size_t>(end - first)}))};
      }
      if (error != std::errc{}) return malformed("a whole number in the shape");
      if (extent < 0) {
        return {Code::io_error, fmt::format("the shape has the negative extent {}", extent)};
      }
      pos_ += static_cast<std::size_t>(end - first);
      shape.push_back(extent);
      take_word("L");  // Python 2 wrote (3L, 4L)
      comma = take(',');
    }
    // Python reads (3) as a number; only (3,) is a shape.
    if (shape.size() == 1 && !comma) return malformed("',' after the shape's only extent");
    return {};
  }

  void skip_space() {
    while (pos_ < text_.size() && std::string_view(" \t\r\n").find(text_[pos_]) != text_.npos)
      ++pos_;
  }
  // The next character that is not space; '\0' at the end.
  char peek() {
    skip_space();
    return pos_ < text_.size() ? text_[pos_] : '\0';
  }
  bool take(char wanted) {
    skip_space();
    if (pos_ >= text_.size() || text_[pos_] != wanted) return false;
    ++pos_;
    return true;
  }
  bool take_word(std::string_view word) {
    skip_space();
    if (!text_.substr(pos_).starts_with(word)) return false;
    pos_ += word.size();
    return true;
  }
  std::optional<std::string_view> take_string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') return std::nullopt;
    const std::size_t end = text_.find(quote, pos_ + 1);
    if (end == text_.npos) return std::nullopt;
    const std::string_view result = text_.substr(pos_ + 1, end - pos_ - 1);
    if (result.find('\\') != result.npos) return std::nullopt;
    pos_ = end + 1;
    return result;
  }
  [[nodiscard]] Status malformed(std::string_view wanted) {
    skip_space();
    if (pos_ >= text_.size()) {
      return {Code::io_error, fmt::format("the header ends where {} should be", wanted)};
    }
    return {Code::io_error, fmt::format("the header has {} at byte {} where {} should be",
                                        in_quotes(text_.substr(pos_, 16)), pos_, wanted)};
  }

  std::string_view text_;
  std::size_t pos_ = 0;
};

// Fortran order -> C order. Walks the result in order and the source by its strides.
void to_row_major(std::span<const std::byte> from, std::span<std::byte> to,
                  std::span<const std::int64_t> shape, std::size_t element) {
  std::array<std::size_t, kMaxFileRank> strides{};
  std::size_t stride = element;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    strides[d] = stride;
    stride *= static_cast<std::size_t>(shape[d]);
  }
  std::array<std::int64_t, kMaxFileRank> index{};
  std::size_t source = 0;
  for (std::size_t target = 0; target < to.size(); target += element) {
    std::memcpy(to.data() + target, from.data() + source, element);
    for (std::size_t d = shape.size(); d-- > 0;) {
      source += strides[d];
      if (++index[d] < shape[d]) break;
      source -= strides[d] * static_cast<std::size_t>(shape[d]);
      index[d] = 0;
    }
  }
}

struct Preamble {
  std::uint64_t header_begin = 0;
  std::uint64_t header_size = 0;
};

Expected<Preamble> read_preamble(const ByteSource& source) {
  std::array<std::byte, 12> bytes{};
  const std::size_t have = std::min<std::uint64_t>(source.size, bytes.size());
  if (Status status = source.read_at(0, std::span(bytes).first(have)); !status.ok()) return status;
  if (have < kMagic.size() || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return Status(Code::io_error, "is not a .npy file: it does not begin with \\x93NUMPY");
  }
  const auto byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes[i]); };
  const bool wide = have > 6 && byte(6) >= 2;  // the length's size
  Preamble result;
  result.header_begin = wide ? 12 : 10;
  if (have < result.header_begin) {
    return Status(Code::io_error,
                  fmt::format("is cut off: {} bytes, and the header alone starts at "
                              "byte {}",
                              source.size, result.header_begin));
  }
  if (byte(6) < 1 || byte(6) > 3 || byte(7) != 0) {
    return Status(
        Code::unsupported,
        fmt::format("has .npy version {}.{}; 1.0, 2.0 and 3.0 are read", byte(6), byte(7)));
  }
  result.header_size = byte(8) | byte(9) << 8U;
  if (wide) result.header_size |= byte(10) << 16U | byte(11) << 24U;
  if (result.header_size > source.size - result.header_begin) {
    return Status(Code::io_error,
                  fmt::format("is cut off: the header is said to have {} bytes, but {} follow",
                              result.header_size, source.size - result.header_begin));
  }
  if (result.header_size > kMaxHeader) {
    return Status(Code::unsupported, fmt::format("has a header of {} bytes, the limit is {}",
                                                 result.header_size, kMaxHeader));
  }
  return result;
}

Expected<Tensor> parse(const ByteSource& source, std::string name) {
  const auto preamble = read_preamble(source);
  if (!preamble.ok()) return preamble.status();
  std::string text(preamble->header_size, '\0');
  Status status = source.read_at(preamble->header_begin, std::as_writable_bytes(std::span(text)));
  if (!status.ok()) return status;
  auto header = HeaderParser(text).parse();
  if (!header.ok()) return header.status();

  const auto bytes = byte_size(header->shape, header->dtype);
  if (!bytes.ok()) return Status(Code::io_error, bytes.status().message());
  const std::uint64_t begin = preamble->header_begin + preamble->header_size;
  const std::uint64_t have = source.size - begin;
  if (*bytes != have) {
    return Status(Code::io_error,
                  fmt::format("{}: shape {} of {} takes {} bytes, but {} follow the header",
                              have < *bytes ? "is cut off" : "has bytes left over",
                              shape_text(header->shape), to_string(header->dtype), *bytes, have));
  }

  Tensor tensor{std::move(name), header->dtype, std::move(header->shape), {}};
  tensor.data.resize(*bytes);
  status = source.read_at(begin, tensor.data);
  if (!status.ok()) return status;
  if (header->fortran_order && tensor.shape.size() > 1) {
    AlignedBytes ordered(tensor.data.size());
    to_row_major(tensor.data, ordered, tensor.shape, size_of(tensor.dtype));
    tensor.data = std::move(ordered);
  }
  normalize_booleans(tensor);
  return tensor;
}

// The header of a file up to its data. Precondition: the dtype has a NumPy name.
std::string header_text(const Tensor& tensor) {
  const auto* name = std::find_if(kDTypeNames.begin(), kDTypeNames.end(),
                                  [&](const DTypeName& n) { return n.dtype == tensor.dtype; });
  const std::string dict =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", name->text,
                  fmt::join(tensor.shape, ", "), tensor.shape.size() == 1 ? "," : "");
  const std::size_t unpadded = kMagic.size() + 4 + dict.size() + 1;
  const std::size_t total = (unpadded + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t length = total - kMagic.size() - 4;  // kMaxFileRank extents are far below 65536
  std::string text(kMagic);
  text += {'\1', '\0', static_cast<char>(length & 0xFFU), static_cast<char>(length >> 8U)};
  text += dict;
  text.append(total - unpadded, ' ');
  text += '\n';
  return text;
}

// The tensor as NumPy can name it: bf16 and f8e4m3 become f32, in `wide`; others stay where they are.
Expected<const Tensor*> nameable(const Tensor& tensor, Tensor& wide) {
  if (Status status = check_consistent(tensor); !status.ok()) return status;
  if (tensor.dtype != DType::bf16 && tensor.dtype != DType::f8e4m3) return &tensor;
  auto widened = cast(tensor, DType::f32);
  if (!widened.ok()) return widened.status();
  wide = std::move(*widened);
  return &wide;
}

}  // namespace

Expected<Tensor> parse_npy(std::span<const std::byte> bytes, std::string name) {
  return no_throw([&] { return parse(memory_source(bytes), std::move(name)); });
}

Expected<AlignedBytes> format_npy(const Tensor& tensor) {
  return no_throw([&]() -> Expected<AlignedBytes> {
    Tensor wide;
    const auto stored = nameable(tensor, wide);
    if (!stored.ok()) return stored.status();
    const std::string header = header_text(**stored);
    const auto header_bytes = std::as_bytes(std::span(header));
    AlignedBytes bytes(header_bytes.begin(), header_bytes.end());
    bytes.insert(bytes.end(), (*stored)->data.begin(), (*stored)->data.end());
    return bytes;
  });
}

Expected<Tensor> read_npy(const std::filesystem::path& path) {
  return no_throw([&]() -> Expected<Tensor> {
    const auto source = file_source(path);
    if (!source.ok()) return in_file(path, source.status());
    auto tensor = no_throw([&] { return parse(*source, path.stem().string()); });
    if (!tensor.ok()) return in_file(path, tensor.status());
    return tensor;
  });
}

Status write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  return no_throw([&]() -> Status {
    Tensor wide;
    const auto stored = nameable(tensor, wide);
    if (!stored.ok()) return in_file(path, stored.status());
    const std::string header = header_text(**stored);
    const std::array<std::span<const std::byte>, 2> parts = {std::as_bytes(std::span(header)),
                                                             (*stored)->data};
    return write_file(path, parts);
  });
}

}  // namespace attune
