#include "io/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "io/tensor.h"

namespace attune {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";
// A valid header has 3 levels: the header, a tensor, its shape. The rest is for unknown fields.
constexpr int kMaxDepth = 8;

struct DTypeName {
  DType dtype;
  std::string_view text;
};
constexpr std::array kDTypeNames = {
    DTypeName{DType::f32, "F32"},        DTypeName{DType::f16, "F16"},
    DTypeName{DType::bf16, "BF16"},      DTypeName{DType::f64, "F64"},
    DTypeName{DType::i32, "I32"},        DTypeName{DType::i64, "I64"},
    DTypeName{DType::boolean, "BOOL"},   DTypeName{DType::u8, "U8"},
    DTypeName{DType::f8e4m3, "F8_E4M3"},
};

// Takes the events of nlohmann's parser, which keeps its own stack: nesting costs no recursion here,
// and a callback that returns false ends the parse. No document tree is built.
class HeaderEvents {
 public:
  using Json = nlohmann::json;

  SafetensorsHeader header;
  Status status;

  // NOLINTBEGIN(readability-identifier-naming): the names are the parser's
  bool null() { return other("null"); }
  bool boolean(bool value) { return other(value ? "true" : "false"); }
  bool number_integer(Json::number_integer_t value) {
    if (where_ == Where::shape || where_ == Where::offsets) {
      return fail(fmt::format("{} of tensor {} has the negative number {}", list_name(),
                              in_quotes(entry().name), value));
    }
    return other(fmt::format("the number {}", value));
  }
  bool number_unsigned(Json::number_unsigned_t value) {
    if (where_ == Where::shape) return add_extent(value);
    if (where_ == Where::offsets) return add_offset(value);
    return other(fmt::format("the number {}", value));
  }
  bool number_float(Json::number_float_t, const std::string& text) {
    if (where_ == Where::shape || where_ == Where::offsets) {
      return fail(fmt::format("{} of tensor {} has {}, which is no whole number below 2^64",
                              list_name(), in_quotes(entry().name), in_quotes(text)));
    }
    return other("the number " + in_quotes(text));
  }
  bool string(std::string& value) {
    if (where_ == Where::metadata) {
      if (!header.metadata.emplace(std::move(key_), std::move(value)).second) {
        return fail("the metadata has a key twice");
      }
      return true;
    }
    if (where_ == Where::tensor && field_ == Field::dtype) return set_dtype(value);
    return other("the text " + in_quotes(value));
  }
  bool binary(Json::binary_t&) { return other("binary data"); }  // JSON text has none

  bool start_object(std::size_t) {
    if (!deeper()) return false;
    switch (where_) {
      case Where::start:
        where_ = Where::root;
        return true;
      case Where::root:
        if (key_ == kMetadataKey) {
          where_ = Where::metadata;
          return true;
        }
        header.entries.emplace_back();
        entry().name = std::move(key_);
        where_ = Where::tensor;
        seen_ = {};
        return true;
      default:
        return start_other("an object");
    }
  }
  bool key(std::string& name) {
    switch (where_) {
      case Where::root:
        if (!names_.insert(name).second) {
          return fail(fmt::format("the name {} is there twice", in_quotes(name)));
        }
        key_ = std::move(name);
        return true;
      case Where::metadata:
        key_ = std::move(name);
        return true;
      case Where::tensor:
        return set_field(name);
      default:
        return true;  // inside an unknown field
    }
  }
  bool end_object() {
    if (unknown_depth_ > 0) return end_other();
    --depth_;
    switch (where_) {
      case Where::tensor:
        where_ = Where::root;
        return finish_tensor();
      case Where::metadata:
        where_ = Where::root;
        return true;
      default:
        return true;  // the header itself
    }
  }
  bool start_array(std::size_t) {
    if (!deeper()) return false;
    if (where_ == Where::tensor && field_ == Field::shape) {
      where_ = Where::shape;
    } else if (where_ == Where::tensor && field_ == Field::offsets) {
      where_ = Where::offsets;
      offsets_ = 0;
    } else {
      return start_other("a list");
    }
    return true;
  }
  bool end_array() {
    if (unknown_depth_ > 0) return end_other();
    --depth_;
    if (where_ == Where::shape) {
      where_ = Where::tensor;
      return true;
    }
    if (where_ == Where::offsets) {
      where_ = Where::tensor;
      if (offsets_ == 2) return true;
      return fail(fmt::format("data_offsets of tensor {} takes 2 numbers, begin and end, not {}",
                              in_quotes(entry().name), offsets_));
    }
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) {
    return fail(fmt::format("the JSON header is malformed at its byte {}", position));
  }
  // NOLINTEND(readability-identifier-naming)

 private:
  enum class Where { start, root, metadata, tensor, shape, offsets };
  enum class Field { dtype, shape, offsets, unknown };

  SafetensorsEntry& entry() { return header.entries.back(); }
  [[nodiscard]] std::string_view list_name() const {
    return where_ == Where::shape ? "the shape" : "data_offsets";
  }
  bool fail(std::string message, Code code = Code::io_error) {
    status = Status(code, std::move(message));
    return false;
  }

  bool deeper() {
    if (++depth_ <= kMaxDepth) return true;
    return fail(fmt::format("the JSON header nests more than {} levels deep", kMaxDepth));
  }
  [[nodiscard]] bool in_unknown() const {
    return where_ == Where::tensor && field_ == Field::unknown;
  }
  // A value that is wrong here, unless it belongs to an unknown field.
  bool other(std::string_view what) {
    if (in_unknown()) return true;
    switch (where_) {
      case Where::start:
        return fail("the JSON header is not an object");
      case Where::root:
        return fail(fmt::format("{} is {} instead of an object", in_quotes(key_), what));
      case Where::metadata:
        return fail(fmt::format("the metadata's {} is {}; metadata maps text to text",
                                in_quotes(key_), what));
      case Where::shape:
      case Where::offsets:
        return fail(fmt::format("{} of tensor {} holds {} instead of numbers", list_name(),
                                in_quotes(entry().name), what));
      case Where::tensor:
        break;
    }
    constexpr std::array kFields = {"dtype", "shape", "data_offsets"};
    return fail(fmt::format("{} of tensor {} is {}", kFields.at(static_cast<std::size_t>(field_)),
                            in_quotes(entry().name), what));
  }
  // The whole value of an unknown field is passed over by counting how deep we are in it.
  bool start_other(std::string_view what) {
    if (!other(what)) return false;
    ++unknown_depth_;
    return true;
  }
  bool end_other() {
    --depth_;
    --unknown_depth_;
    return true;
  }

  bool set_field(const std::string& name) {
    if (unknown_depth_ > 0) return true;
    field_ = name == "dtype"          ? Field::dtype
             : name == "shape"        ? Field::shape
             : name == "data_offsets" ? Field::offsets
                                      : Field::unknown;
    if (field_ == Field::unknown) return true;
    if (!std::exchange(seen_[static_cast<std::size_t>(field_)], true)) return true;
    return fail(fmt::format("tensor {} has the field {} twice", in_quotes(entry().name), name));
  }
  bool set_dtype(const std::string& text) {
    for (const auto& name : kDTypeNames) {
      if (text == name.text) {
        entry().dtype = name.dtype;
        return true;
      }
    }
    std::string message =
        fmt::format("tensor {} has dtype {}, which is not read; the ones read are",
                    in_quotes(entry().name), in_quotes(text));
    for (const auto& name : kDTypeNames) message += fmt::format(" {}", name.text);
    return fail(std::move(message), Code::unsupported);
  }
  bool add_extent(std::uint64_t value) {
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return fail(fmt::format("the shape of tensor {} has the extent {}, past 2^63-1",
                              in_quotes(entry().name), value));
    }
    if (entry().shape.size() == kMaxFileRank) {
      return fail(fmt::format("the shape of tensor {} has more than {} dimensions",
                              in_quotes(entry().name), kMaxFileRank),
                  Code::unsupported);
    }
    entry().shape.push_back(static_cast<std::int64_t>(value));
    return true;
  }
  bool add_offset(std::uint64_t value) {
    if (offsets_ == 0) entry().begin = value;
    if (offsets_ == 1) entry().end = value;
    ++offsets_;
    return true;
  }
  bool finish_tensor() {
    constexpr std::array kFields = {"dtype", "shape", "data_offsets"};
    for (std::size_t i = 0; i < kFields.size(); ++i) {
      if (!seen_[i]) {
        return fail(fmt::format("tensor {} has no {}", in_quotes(entry().name), kFields[i]));
      }
    }
    return true;
  }

  Where where_ = Where::start;
  Field field_ = Field::unknown;
  int depth_ = 0;
  int unknown_depth_ = 0;
  std::size_t offsets_ = 0;
  std::array<bool, 3> seen_{};  // the fields of the present tensor, by Field
  std::string key_;
  std::set<std::string> names_;
};

// What must hold for one tensor alone.
Status check_entry(const SafetensorsEntry& entry, std::uint64_t data_size) {
  const std::string tensor = "tensor " + in_quotes(entry.name);
  if (entry.begin > entry.end) {
    return {Code::io_error, fmt::format("the data_offsets of {} go backwards: [{}, {}]", tensor,
                                        entry.begin, entry.end)};
  }
  if (entry.end > data_size) {
    return {Code::io_error,
            fmt::format("{} ends at byte {} of the data, but the file has only {} bytes of it",
                        tensor, entry.end, data_size)};
  }
  const auto bytes = byte_size(entry.shape, entry.dtype);
  if (!bytes.ok()) {
    return {Code::io_error, fmt::format("{}: {}", tensor, bytes.status().message())};
  }
  if (*bytes != entry.end - entry.begin) {
    return {Code::io_error, fmt::format("{} has {} bytes, but its shape {} of {} takes {}", tensor,
                                        entry.end - entry.begin, shape_text(entry.shape),
                                        to_string(entry.dtype), *bytes)};
  }
  return {};
}

// What must hold for all together: each byte belongs to exactly one tensor.
Status check_cover(const std::vector<SafetensorsEntry>& entries, std::uint64_t data_size) {
  std::uint64_t covered = 0;
  const SafetensorsEntry* last = nullptr;
  for (const auto& entry : entries) {
    if (entry.begin < covered) {
      return {Code::io_error,
              fmt::format("the tensors {} and {} overlap at byte {} of the data",
                          in_quotes(last->name), in_quotes(entry.name), entry.begin)};
    }
    if (entry.begin > covered) {
      return {Code::io_error,
              fmt::format("bytes {} to {} of the data, before tensor {}, belong to no tensor",
                          covered, entry.begin, in_quotes(entry.name))};
    }
    covered = entry.end;
    last = &entry;
  }
  if (covered != data_size) {
    return {Code::io_error,
            fmt::format("the data from byte {} to its end at {} belongs to no tensor", covered,
                        data_size)};
  }
  return {};
}

// The JSON string of a text, or nothing when it is not UTF-8.
std::optional<std::string> json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    return std::nullopt;
  }
}

Status not_utf8(std::string_view what, std::string_view text) {
  return {
      Code::invalid_argument,
      fmt::format("{} {} is not valid UTF-8, which .safetensors asks for", what, in_quotes(text))};
}

}  // namespace

Expected<SafetensorsHeader> parse_safetensors_header(std::string_view json,
                                                     std::uint64_t data_size) {
  if (!json.starts_with('{')) {
    return Status(Code::io_error, "is not a .safetensors file: its header does not begin with '{'");
  }
  // To nlohmann's parser a zero byte is the end of the text, which would hide what follows it.
  if (const std::size_t zero = json.find('\0'); zero != json.npos) {
    return Status(Code::io_error, fmt::format("the JSON header has a zero byte at {}", zero));
  }
  HeaderEvents events;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &events)) {
    return events.status;
  }
  auto& entries = events.header.entries;
  for (const auto& entry : entries) {
    if (Status status = check_entry(entry, data_size); !status.ok()) return status;
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  if (Status status = check_cover(entries, data_size); !status.ok()) return status;
  return std::move(events.header);
}

Expected<std::string> format_safetensors_header(const SafetensorsHeader& header) {
  std::string text = "{";
  if (!header.metadata.empty()) {
    text += fmt::format("\"{}\":{{", kMetadataKey);
    for (const auto& [key, value] : header.metadata) {
      const auto key_text = json_string(key);
      if (!key_text) return not_utf8("the metadata key", key);
      const auto value_text = json_string(value);
      if (!value_text) return not_utf8("the metadata", value);
      if (text.back() != '{') text += ',';
      text += *key_text + ":" + *value_text;
    }
    text += '}';
  }
  for (const auto& entry : header.entries) {
    if (entry.name == kMetadataKey) {
      return Status(Code::invalid_argument,
                    "a tensor cannot be called \"__metadata__\": that is the key of the metadata");
    }
    const auto name = json_string(entry.name);
    if (!name) return not_utf8("the tensor name", entry.name);
    const auto* dtype = std::find_if(kDTypeNames.begin(), kDTypeNames.end(),
                                     [&](const DTypeName& n) { return n.dtype == entry.dtype; });
    if (dtype == kDTypeNames.end()) {
      return Status(Code::internal, fmt::format("dtype {} has no .safetensors name",
                                                static_cast<int>(entry.dtype)));
    }
    if (text.size() > 1) text += ',';
    text += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", *name,
                        dtype->text, fmt::join(entry.shape, ","), entry.begin, entry.end);
  }
  text += '}';
  return text;
}

}  // namespace attune
