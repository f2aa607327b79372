// .safetensors: golden bytes, round trips, and every way in which a header can lie.
#include "io/safetensors.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "io/tensor_file.h"

namespace attune {
namespace {

namespace fs = std::filesystem;

std::string file_of(std::string_view json, std::string_view data = {}) {
  const std::uint64_t length = json.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  text += json;
  text += data;
  return text;
}

Expected<Safetensors> parse_bytes(std::string_view text) {
  return parse_safetensors(std::as_bytes(std::span(text.data(), text.size())));
}

Expected<Safetensors> parse(std::string_view json, std::size_t data_bytes = 0) {
  return parse_bytes(file_of(json, std::string(data_bytes, '\0')));
}

// One tensor's entry in the header.
std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::string_view offsets) {
  return "\"" + std::string(name) + "\":{\"dtype\":\"" + std::string(dtype) +
         "\",\"shape\":" + std::string(shape) + ",\"data_offsets\":" + std::string(offsets) + "}";
}

Tensor tensor_of(std::string name, DType dtype, std::vector<std::int64_t> shape,
                 std::size_t bytes) {
  Tensor tensor{std::move(name), dtype, std::move(shape), {}};
  for (std::size_t i = 0; i < bytes; ++i) {
    tensor.data.push_back(static_cast<std::byte>(dtype == DType::boolean ? i % 2 : i % 251));
  }
  return tensor;
}

template <typename T>
void expect_refused(const Expected<T>& result, Code code, std::string_view words) {
  ASSERT_FALSE(result.ok()) << "expected: " << words;
  EXPECT_EQ(result.status().code(), code) << result.status().message();
  EXPECT_NE(result.status().message().find(words), std::string::npos)
      << "message: " << result.status().message() << "\nexpected: " << words;
}

std::string text_of(const AlignedBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class SafetensorsFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "attune_safetensors_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
};

TEST(Safetensors, WritesTheFormat) {
  // Sorted by name, header padded to 8 bytes.
  const std::vector<Tensor> tensors = {tensor_of("v", DType::u8, {3}, 3),
                                       tensor_of("k", DType::bf16, {1, 2}, 4)};
  const auto bytes = format_safetensors(tensors, {{"by", "a \"test\""}});
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  std::string json = R"({"__metadata__":{"by":"a \"test\""},)"
                     R"("k":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},)"
                     R"("v":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}})";
  json.append((8 - json.size() % 8) % 8, ' ');
  EXPECT_EQ(json.size() % 8, 0U);
  EXPECT_EQ(text_of(*bytes), file_of(json, std::string_view("\0\1\2\3\0\1\2", 7)));
}

TEST(Safetensors, ReadsEveryDType) {
  struct Case {
    const char* text;
    DType dtype;
  };
  for (const Case& c : {Case{"F32", DType::f32},
                        {"F16", DType::f16},
                        {"BF16", DType::bf16},
                        {"F64", DType::f64},
                        {"BOOL", DType::boolean},
                        {"I32", DType::i32},
                        {"I64", DType::i64},
                        {"U8", DType::u8},
                        {"F8_E4M3", DType::f8e4m3}}) {
    const std::size_t bytes = 6 * size_of(c.dtype);
    const auto contents =
        parse("{" + entry("x", c.text, "[2,3]", "[0," + std::to_string(bytes) + "]") + "}", bytes);
    ASSERT_TRUE(contents.ok()) << c.text << ": " << contents.status().message();
    ASSERT_EQ(contents->tensors.size(), 1U);
    const Tensor& tensor = contents->tensors[0];
    EXPECT_EQ(tensor.name, "x");
    EXPECT_EQ(tensor.dtype, c.dtype);
    EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(tensor.data.size(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % kTensorAlignment, 0U);
  }
}

TEST(Safetensors, OrderIsThatOfTheData) {
  const auto contents =
      parse("{" + entry("a", "U8", "[2]", "[3,5]") + "," + entry("z", "U8", "[]", "[2,3]") + "," +
                entry("m", "U8", "[2]", "[0,2]") + "}   ",
            5);
  ASSERT_TRUE(contents.ok()) << contents.status().message();
  ASSERT_EQ(contents->tensors.size(), 3U);
  EXPECT_EQ(contents->tensors[0].name, "m");
  EXPECT_EQ(contents->tensors[1].name, "z");
  EXPECT_EQ(contents->tensors[2].name, "a");
}

TEST(Safetensors, EmptyThings) {
  EXPECT_TRUE(parse("{}").ok());
  const auto contents =
      parse("{" + entry("e", "F32", "[0,7]", "[0,0]") + "," + entry("", "U8", "[1]", "[0,1]") +
                "," + entry("f", "F64", "[7,0]", "[1,1]") + "}",
            1);
  ASSERT_TRUE(contents.ok()) << contents.status().message();
  EXPECT_EQ(contents->tensors.size(), 3U);
  const auto none = format_safetensors({});
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(parse_safetensors(*none).ok());
}

TEST(Safetensors, RoundTrip) {
  const std::vector<Tensor> tensors = {tensor_of("a", DType::boolean, {3}, 3),
                                       tensor_of("b\"\\\n\xC3\xA9", DType::f64, {2, 1, 2}, 32),
                                       tensor_of("c", DType::i32, {0}, 0),
                                       tensor_of("d", DType::f16, {}, 2)};
  const Metadata metadata = {
      {"", ""}, {"problem", "forward dtype=f32 b=1"}, {"\xE2\x82\xAC", "\n"}};
  const auto bytes = format_safetensors(tensors, metadata);
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  const auto back = parse_safetensors(*bytes);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->metadata, metadata);
  ASSERT_EQ(back->tensors.size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(back->tensors[i].name, tensors[i].name);
    EXPECT_EQ(back->tensors[i].dtype, tensors[i].dtype);
    EXPECT_EQ(back->tensors[i].shape, tensors[i].shape);
    EXPECT_EQ(back->tensors[i].data, tensors[i].data);
  }
}

TEST(Safetensors, BooleansBecomeZeroOrOne) {
  const auto contents = parse_bytes(
      file_of("{" + entry("m", "BOOL", "[3]", "[0,3]") + "}", std::string_view("\0\2\xFF", 3)));
  ASSERT_TRUE(contents.ok());
  const AlignedBytes wanted = {std::byte{0}, std::byte{1}, std::byte{1}};
  EXPECT_EQ(contents->tensors[0].data, wanted);
}

TEST(Safetensors, PassesOverUnknownFields) {
  const auto contents =
      parse(R"({"a":{"note":{"dtype":[1,{"shape":null}],"x":true},"more":[[],{}],"n":-1.5,)"
            R"("dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
            1);
  ASSERT_TRUE(contents.ok()) << contents.status().message();
  EXPECT_EQ(contents->tensors[0].dtype, DType::u8);
}

TEST(SafetensorsRefuses, EveryPrefix) {
  const std::string file = file_of("{" + entry("a", "F32", "[2]", "[0,8]") + "}", "abcdefgh");
  ASSERT_TRUE(parse_bytes(file).ok());
  for (std::size_t n = 0; n < file.size(); ++n) {
    const auto result = parse_bytes(std::string_view(file).substr(0, n));
    ASSERT_FALSE(result.ok()) << n;
    EXPECT_EQ(result.status().code(), Code::io_error) << result.status().message();
  }
  expect_refused(parse_bytes("abc"), Code::io_error, "cut off: 3 bytes");
}

TEST(SafetensorsRefuses, HugeHeaderLength) {
  expect_refused(parse_bytes(std::string(8, '\xFF') + "{}"), Code::io_error,
                 "header of 18446744073709551615 bytes, the limit of the format is 100000000");
  std::string file = file_of("{}");
  const std::uint64_t length = 100'000'000;
  std::memcpy(file.data(), &length, 8);
  expect_refused(parse_bytes(file), Code::io_error, "100000000 bytes, but 2 follow");
}

TEST(SafetensorsRefuses, WhatIsNotAnObject) {
  for (const char* json : {"", " {}", "[]", "\"x\"", "null", "\xEF\xBB\xBF{}"}) {
    expect_refused(parse(json), Code::io_error, "does not begin with '{'");
  }
}

TEST(SafetensorsRefuses, MalformedJson) {
  for (const char* json :
       {"{", "{\"a\"", "{\"a\":", "{\"a\":{", "{,}", "{}}", "{} x", "{'a':1}",
        "{\"__metadata__\":{}, }", "{\"\xFF\":{}}", "{}// note", "{\"a\":1e999}"}) {
    expect_refused(parse(json), Code::io_error, "malformed");
  }
  // The parser takes a zero byte for the end; what follows must not be ignored.
  expect_refused(parse(std::string_view("{}\0 anything", 12)), Code::io_error, "zero byte at 2");
}

TEST(SafetensorsRefuses, DeepJson) {
  const std::string many(1'000'000, '[');
  expect_refused(parse("{\"a\":" + many), Code::io_error, "instead of an object");
  expect_refused(parse("{\"a\":{\"unknown\":" + many), Code::io_error, "nests more than 8 levels");
  expect_refused(parse("{\"a\":{\"shape\":" + many), Code::io_error, "holds a list");
  std::string objects = "{\"a\":{\"unknown\":";
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  expect_refused(parse(objects), Code::io_error, "nests more than 8 levels");
}

TEST(SafetensorsRefuses, WrongKindsOfValues) {
  expect_refused(parse("{1:{}}"), Code::io_error, "malformed");
  expect_refused(parse("{null:{}}"), Code::io_error, "malformed");
  expect_refused(parse("{\"a\":1}"), Code::io_error, "\"a\" is the number 1 instead of an object");
  expect_refused(parse("{\"a\":{\"dtype\":7}}"), Code::io_error,
                 "dtype of tensor \"a\" is the number 7");
  expect_refused(parse("{\"a\":{\"dtype\":{}}}"), Code::io_error,
                 "dtype of tensor \"a\" is an object");
  expect_refused(parse("{\"a\":{\"shape\":3}}"), Code::io_error,
                 "shape of tensor \"a\" is the number 3");
  expect_refused(parse("{\"a\":{\"shape\":[\"3\"]}}"), Code::io_error, "instead of numbers");
  expect_refused(parse("{\"a\":{\"shape\":[[3]]}}"), Code::io_error, "holds a list");
  expect_refused(parse("{\"a\":{\"shape\":[true]}}"), Code::io_error, "holds true");
  expect_refused(parse("{\"a\":{\"data_offsets\":null}}"), Code::io_error,
                 "data_offsets of tensor \"a\" is null");
  expect_refused(parse("{\"__metadata__\":{\"a\":1}}"), Code::io_error,
                 "metadata maps text to text");
  expect_refused(parse("{\"__metadata__\":{\"a\":{}}}"), Code::io_error,
                 "metadata maps text to text");
  expect_refused(parse("{\"__metadata__\":[]}"), Code::io_error, "instead of an object");
}

TEST(SafetensorsRefuses, MissingAndRepeatedFields) {
  expect_refused(parse("{\"a\":{}}"), Code::io_error, "tensor \"a\" has no dtype");
  expect_refused(parse(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})"), Code::io_error,
                 "has no shape");
  expect_refused(parse(R"({"a":{"dtype":"U8","shape":[0]}})"), Code::io_error,
                 "has no data_offsets");
  expect_refused(parse(R"({"a":{"dtype":"U8","dtype":"U8"}})"), Code::io_error,
                 "the field dtype twice");
  expect_refused(
      parse("{" + entry("a", "U8", "[0]", "[0,0]") + "," + entry("a", "U8", "[0]", "[0,0]") + "}"),
      Code::io_error, "\"a\" is there twice");
  expect_refused(parse(R"({"__metadata__":{"k":"1","k":"2"}})"), Code::io_error, "a key twice");
  expect_refused(parse(R"({"__metadata__":{},"__metadata__":{}})"), Code::io_error, "there twice");
}

TEST(SafetensorsRefuses, OtherDTypes) {
  for (const char* dtype : {"F8_E5M2", "I8", "U16", "C64", "f32", ""}) {
    expect_refused(parse("{" + entry("a", dtype, "[1]", "[0,1]") + "}", 1), Code::unsupported,
                   "dtype \"" + std::string(dtype) + "\"");
  }
}

TEST(SafetensorsRefuses, BadShapes) {
  expect_refused(parse("{" + entry("a", "U8", "[-1]", "[0,1]") + "}", 1), Code::io_error,
                 "the shape of tensor \"a\" has the negative number -1");
  expect_refused(parse("{" + entry("a", "U8", "[1.0]", "[0,1]") + "}", 1), Code::io_error,
                 "no whole number");
  expect_refused(parse("{" + entry("a", "U8", "[9223372036854775808]", "[0,1]") + "}", 1),
                 Code::io_error, "past 2^63-1");
  expect_refused(parse("{" + entry("a", "U8", "[99999999999999999999]", "[0,1]") + "}", 1),
                 Code::io_error, "no whole number");
  // Products that wrap around to the size that is there.
  expect_refused(parse("{" + entry("a", "F32", "[4294967296,4294967296]", "[0,0]") + "}"),
                 Code::io_error, "2^63-1");
  expect_refused(parse("{" + entry("a", "F32", "[4611686018427387905]", "[0,4]") + "}", 4),
                 Code::io_error, "2^63-1");
  expect_refused(parse("{" + entry("a", "U8", "[4294967296,4294967296,0]", "[0,0]") + "}"),
                 Code::io_error, "2^63-1");
  std::string ones = "[1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  expect_refused(parse("{" + entry("a", "U8", ones + "]", "[0,1]") + "}", 1), Code::unsupported,
                 "more than 64 dimensions");
}

TEST(SafetensorsRefuses, BadOffsets) {
  const auto one = [](std::string_view offsets, std::size_t data) {
    return parse("{" + entry("a", "F32", "[2]", offsets) + "}", data);
  };
  ASSERT_TRUE(one("[0,8]", 8).ok());
  expect_refused(one("[0,8]", 7), Code::io_error,
                 "ends at byte 8 of the data, but the file has only 7");
  expect_refused(one("[0,4]", 8), Code::io_error, "has 4 bytes, but its shape [2] of f32 takes 8");
  expect_refused(one("[8,0]", 8), Code::io_error, "backwards");
  expect_refused(one("[-8,0]", 8), Code::io_error, "negative number -8");
  expect_refused(one("[0]", 8), Code::io_error, "takes 2 numbers, begin and end, not 1");
  expect_refused(one("[0,8,8]", 8), Code::io_error, "takes 2 numbers, begin and end, not 3");
  expect_refused(one("[0,8]", 9), Code::io_error,
                 "the data from byte 8 to its end at 9 belongs to no tensor");
  expect_refused(one("[4,12]", 12), Code::io_error, "bytes 0 to 4 of the data");
  expect_refused(one("[18446744073709551608,18446744073709551615]", 8), Code::io_error,
                 "ends at byte 18446744073709551615");
  // 2^60 bytes, consistent with the shape: allocated first, it would be out_of_memory.
  expect_refused(
      parse("{" + entry("a", "F32", "[288230376151711744]", "[0,1152921504606846976]") + "}", 8),
      Code::io_error, "only 8 bytes");
}

TEST(SafetensorsRefuses, OverlapsAndHoles) {
  expect_refused(
      parse("{" + entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "U8", "[4]", "[3,7]") + "}",
            7),
      Code::io_error, "\"a\" and \"b\" overlap at byte 3");
  expect_refused(
      parse("{" + entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "U8", "[4]", "[0,4]") + "}",
            4),
      Code::io_error, "overlap");
  expect_refused(
      parse("{" + entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "U8", "[1]", "[6,7]") + "}",
            7),
      Code::io_error, "bytes 4 to 6 of the data, before tensor \"b\"");
  // An empty tensor inside another one overlaps it too.
  expect_refused(
      parse("{" + entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "U8", "[0]", "[2,2]") + "}",
            4),
      Code::io_error, "overlap");
  expect_refused(parse("{}", 3), Code::io_error, "the data from byte 0 to its end at 3");
}

TEST(SafetensorsRefuses, MessagesStayShortAndPrintable) {
  const std::string name = R"(\u001b[31m\u0000)" + std::string(100'000, 'x');
  const auto result = parse("{\"" + name + "\":1}");
  ASSERT_FALSE(result.ok());
  EXPECT_LT(result.status().message().size(), 300U);
  for (const char c : result.status().message()) EXPECT_TRUE(c >= 0x20 && c < 0x7F);
}

TEST(SafetensorsRefuses, ToWriteNonsense) {
  const auto refused = [](const std::vector<Tensor>& tensors, const Metadata& metadata,
                          std::string_view words) {
    expect_refused(format_safetensors(tensors, metadata), Code::invalid_argument, words);
  };
  const Tensor good = tensor_of("a", DType::u8, {3}, 3);
  refused({good, good}, {}, "two tensors are called \"a\"");
  refused({tensor_of("a", DType::u8, {4}, 3)}, {}, "holds 3 bytes");
  refused({tensor_of("a", DType::u8, {-3}, 3)}, {}, "negative extent -3");
  refused({tensor_of("__metadata__", DType::u8, {3}, 3)}, {}, "__metadata__");
  refused({tensor_of("\xFF", DType::u8, {3}, 3)}, {}, "not valid UTF-8");
  refused({good}, {{"\xFF", ""}}, "not valid UTF-8");
  refused({good}, {{"k", "\xC3"}}, "not valid UTF-8");
}

TEST_F(SafetensorsFile, RoundTrip) {
  const std::vector<Tensor> tensors = {tensor_of("k", DType::f32, {2, 3}, 24),
                                       tensor_of("q", DType::bf16, {1, 5}, 10),
                                       tensor_of("v", DType::f8e4m3, {7}, 7)};
  const fs::path path = folder_ / "qk.safetensors";
  const Status written = write_tensors(path, tensors, {{"from", "test"}});
  ASSERT_TRUE(written.ok()) << written.message();
  const auto contents = read_safetensors(path);
  ASSERT_TRUE(contents.ok()) << contents.status().message();
  EXPECT_EQ(contents->metadata, (Metadata{{"from", "test"}}));
  const auto back = read_tensors(path);
  ASSERT_TRUE(back.ok()) << back.status().message();
  ASSERT_EQ(back->size(), tensors.size());
  for (std::size_t n = 0; n < tensors.size(); ++n) {
    EXPECT_EQ((*back)[n].dtype, tensors[n].dtype);
    EXPECT_EQ((*back)[n].data, tensors[n].data);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(SafetensorsFile, ErrorsNameThePath) {
  const fs::path path = folder_ / "bad.safetensors";
  expect_refused(read_safetensors(path), Code::io_error,
                 path.string() + ": cannot be opened: No such");
  std::ofstream(path, std::ios::binary) << file_of("{\"a\":1}");
  expect_refused(read_tensors(path), Code::io_error, path.string() + ": \"a\" is the number 1");
  const Tensor tensor = tensor_of("a", DType::u8, {3}, 2);
  const Status status = write_safetensors(path, std::span(&tensor, 1));
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_TRUE(status.message().starts_with(path.string())) << status.message();
}

}  // namespace
}  // namespace attune
