// .npy: golden bytes as NumPy writes them, round trips, and every way in which a file can lie.
#include "io/npy.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "io/convert.h"
#include "io/tensor_file.h"

namespace attune {
namespace {

namespace fs = std::filesystem;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

Expected<Tensor> parse(std::string_view text) { return parse_npy(bytes_of(text), "t"); }

// A version 1.0 file with the given header dict and data; NumPy's padding left out on purpose.
std::string npy(std::string_view dict, std::string_view data = {}) {
  std::string text("\x93NUMPY\x01\0", 8);
  text += static_cast<char>(dict.size() & 0xFFU);
  text += static_cast<char>(dict.size() >> 8U);
  text += dict;
  text += data;
  return text;
}

std::string plain(std::string_view descr, std::string_view shape, std::size_t data_bytes) {
  return npy("{'descr': '" + std::string(descr) +
                 "', 'fortran_order': False, 'shape': " + std::string(shape) + ", }\n",
             std::string(data_bytes, '\0'));
}

template <typename T>
std::vector<T> values(const Tensor& tensor) {
  std::vector<T> result(tensor.data.size() / sizeof(T));
  if (!result.empty()) std::memcpy(result.data(), tensor.data.data(), tensor.data.size());
  return result;
}

template <typename T>
std::string raw(const std::vector<T>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(T)};
}

template <typename T>
Tensor tensor_of(DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& numbers) {
  Tensor tensor{"t", dtype, std::move(shape), {}};
  tensor.data.resize(numbers.size() * sizeof(T));
  if (!numbers.empty()) std::memcpy(tensor.data.data(), numbers.data(), numbers.size() * sizeof(T));
  return tensor;
}

// A refusal has the expected code and says the expected words.
void expect_refused(const Expected<Tensor>& result, Code code, std::string_view words) {
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), code) << result.status().message();
  EXPECT_NE(result.status().message().find(words), std::string::npos)
      << "message: " << result.status().message();
}

class NpyFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "attune_npy_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }

  fs::path folder_;
};

TEST(Npy, ReadsWhatNumPyWrites) {
  // np.save of np.arange(6, dtype=np.float32).reshape(2, 3), byte for byte.
  std::string file("\x93NUMPY\x01\0v\0", 10);
  file += "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  file.append(127 - file.size(), ' ');
  file += '\n';
  ASSERT_EQ(file.size(), 128U);
  const std::vector<float> numbers = {0, 1, 2, 3, 4, 5};
  file += raw(numbers);

  const auto tensor = parse(file);
  ASSERT_TRUE(tensor.ok()) << tensor.status().message();
  EXPECT_EQ(tensor->name, "t");
  EXPECT_EQ(tensor->dtype, DType::f32);
  EXPECT_EQ(tensor->shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(values<float>(*tensor), numbers);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor->data.data()) % kTensorAlignment, 0U);

  // Writing it gives the same bytes again.
  const auto again = format_npy(*tensor);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(again->data()), again->size()), file);
}

TEST(Npy, ViewIsRowMajor) {
  const auto tensor = parse(plain("<f4", "(2, 3, 4)", 96));
  ASSERT_TRUE(tensor.ok());
  const TensorView view = tensor->view();
  EXPECT_EQ(view.rank, 3);
  EXPECT_EQ(view.data, tensor->data.data());
  EXPECT_EQ(view.shape, (std::array<std::int64_t, kMaxRank>{2, 3, 4, 0}));
  EXPECT_EQ(view.strides[0], 12);
  EXPECT_EQ(view.strides[1], 4);
  EXPECT_EQ(view.strides[2], 1);
}

TEST(Npy, ViewOfTooManyDimensionsIsEmpty) {
  const auto tensor = parse(plain("|u1", "(1, 1, 1, 1, 1)", 1));
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(tensor->rank(), 5);
  EXPECT_TRUE(tensor->view().empty());
}

TEST(Npy, EveryDType) {
  struct Case {
    const char* descr;
    DType dtype;
  };
  for (const Case& c : {Case{"<f4", DType::f32},
                        {"<f2", DType::f16},
                        {"<f8", DType::f64},
                        {"|b1", DType::boolean},
                        {"<i4", DType::i32},
                        {"<i8", DType::i64},
                        {"|u1", DType::u8}}) {
    const auto tensor = parse(plain(c.descr, "(3,)", 3 * size_of(c.dtype)));
    ASSERT_TRUE(tensor.ok()) << c.descr << ": " << tensor.status().message();
    EXPECT_EQ(tensor->dtype, c.dtype);
    const auto bytes = format_npy(*tensor);
    ASSERT_TRUE(bytes.ok());
    const std::string text(reinterpret_cast<const char*>(bytes->data()), bytes->size());
    EXPECT_NE(text.find("'" + std::string(c.descr) + "'"), std::string::npos);
    EXPECT_EQ((bytes->size() - tensor->data.size()) % 64, 0U);
  }
}

TEST(Npy, EveryVersion) {
  const std::string dict = "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n";
  for (const char version : {'\2', '\3'}) {
    std::string text = std::string("\x93NUMPY") + version + '\0';
    text += static_cast<char>(dict.size());
    text += std::string(3, '\0') + dict + "\x07\x08";
    const auto tensor = parse(text);
    ASSERT_TRUE(tensor.ok()) << tensor.status().message();
    EXPECT_EQ(values<std::uint8_t>(*tensor), (std::vector<std::uint8_t>{7, 8}));
  }
}

TEST(Npy, TakesEverySpellingOfTheHeader) {
  EXPECT_TRUE(parse(npy("{\"shape\":(2,),\"fortran_order\":False,\"descr\":\"|u1\"}", "ab")).ok());
  EXPECT_TRUE(parse(npy("{'descr':'|u1','fortran_order':False,'shape':(1L, 2L)}", "ab")).ok());
  EXPECT_TRUE(
      parse(npy(" { 'descr' : '|u1' , 'fortran_order' : True , 'shape' : ( 2 , ) , } ", "ab"))
          .ok());
}

TEST(Npy, ScalarsAndEmptyArrays) {
  const auto scalar = parse(plain("<i8", "()", 8));
  ASSERT_TRUE(scalar.ok()) << scalar.status().message();
  EXPECT_TRUE(scalar->shape.empty());
  const auto empty = parse(plain("<f4", "(3, 0, 5)", 0));
  ASSERT_TRUE(empty.ok()) << empty.status().message();
  EXPECT_TRUE(empty->data.empty());
  EXPECT_EQ(empty->view().rank, 3);
  EXPECT_FALSE(empty->view().empty());
  EXPECT_TRUE(parse(npy("{'descr':'<f4','fortran_order':True,'shape':(3,0,5)}")).ok());
}

TEST(Npy, FortranOrderBecomesRowMajor) {
  // a[i][j][k] = 100 i + 10 j + k, first index fastest.
  std::vector<std::int32_t> stored;
  std::vector<std::int32_t> wanted;
  for (int k = 0; k < 4; ++k) {
    for (int j = 0; j < 3; ++j) {
      for (int i = 0; i < 2; ++i) stored.push_back(100 * i + 10 * j + k);
    }
  }
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 4; ++k) wanted.push_back(100 * i + 10 * j + k);
    }
  }
  const auto tensor =
      parse(npy("{'descr':'<i4','fortran_order':True,'shape':(2,3,4)}", raw(stored)));
  ASSERT_TRUE(tensor.ok()) << tensor.status().message();
  EXPECT_EQ(tensor->shape, (std::vector<std::int64_t>{2, 3, 4}));
  EXPECT_EQ(values<std::int32_t>(*tensor), wanted);
}

TEST(Npy, BooleansBecomeZeroOrOne) {
  const auto tensor = parse(npy("{'descr':'|b1','fortran_order':False,'shape':(3,)}",
                                std::string_view("\x00\x01\xFF", 3)));
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(values<std::uint8_t>(*tensor), (std::vector<std::uint8_t>{0, 1, 1}));
}

TEST(Npy, Bf16IsWrittenAsFloat32) {
  const Tensor tensor = tensor_of<std::uint16_t>(DType::bf16, {3}, {0x3F80, 0xC020, 0x7F80});
  const auto bytes = format_npy(tensor);
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  const auto back = parse_npy(*bytes);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->dtype, DType::f32);
  EXPECT_EQ(values<float>(*back),
            (std::vector<float>{1.0F, -2.5F, std::numeric_limits<float>::infinity()}));
}

TEST(Npy, EighthsAreWrittenAsFloat32) {
  const auto bytes = format_npy(tensor_of<std::uint8_t>(DType::f8e4m3, {3}, {0x38, 0xC0, 0x7E}));
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  const auto back = parse_npy(*bytes);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->dtype, DType::f32);
  EXPECT_EQ(values<float>(*back), (std::vector<float>{1.0F, -2.0F, 448.0F}));
}

TEST(NpyRefuses, WhatIsNoNpy) {
  expect_refused(parse(""), Code::io_error, "does not begin with");
  expect_refused(parse("\x93NUM"), Code::io_error, "does not begin with");
  expect_refused(parse("PK\x03\x04 an .npz archive"), Code::io_error, "does not begin with");
}

TEST(NpyRefuses, EveryPrefix) {
  const std::string file = plain("<f4", "(2, 3)", 24);
  ASSERT_TRUE(parse(file).ok());
  for (std::size_t n = 0; n < file.size(); ++n) {
    const auto result = parse(std::string_view(file).substr(0, n));
    ASSERT_FALSE(result.ok()) << n;
    EXPECT_EQ(result.status().code(), Code::io_error) << result.status().message();
  }
}

TEST(NpyRefuses, UnknownVersions) {
  std::string file = plain("<f4", "(2, 3)", 24);
  file[6] = '\4';
  expect_refused(parse(file), Code::unsupported, "version 4.0");
  file[6] = '\0';
  expect_refused(parse(file), Code::unsupported, "version 0.0");
  file[6] = '\1';
  file[7] = '\1';
  expect_refused(parse(file), Code::unsupported, "version 1.1");
}

TEST(NpyRefuses, HugeHeaderLength) {
  expect_refused(parse(std::string_view("\x93NUMPY\x01\0\xFF\xFF{", 11)), Code::io_error,
                 "65535 bytes, but 1 follow");
  expect_refused(parse(std::string_view("\x93NUMPY\x02\0\xFF\xFF\xFF\xFF{", 13)), Code::io_error,
                 "4294967295 bytes, but 1 follow");
  std::string padded("\x93NUMPY\x02\0\0\0\x20\0", 12);  // 2 MiB, and they are there
  padded.append(2U << 20U, ' ');
  expect_refused(parse(padded), Code::unsupported, "the limit is 1048576");
}

TEST(NpyRefuses, LyingShapes) {
  expect_refused(parse(plain("<f4", "(2, 3)", 20)), Code::io_error,
                 "takes 24 bytes, but 20 follow");
  expect_refused(parse(plain("<f4", "(2, 3)", 28)), Code::io_error, "bytes left over");
  expect_refused(parse(plain("<f4", "(0,)", 4)), Code::io_error, "bytes left over");
  // 2^60 bytes: were it allocated first, this would be out_of_memory.
  expect_refused(parse(plain("<f4", "(1073741824, 268435456)", 8)), Code::io_error, "cut off");
}

TEST(NpyRefuses, ShapeOverflow) {
  expect_refused(parse(plain("<f4", "(4294967296, 4294967296)", 8)), Code::io_error, "2^63-1");
  expect_refused(parse(plain("<f8", "(1152921504606846976,)", 8)), Code::io_error, "2^63-1");
  expect_refused(parse(plain("<f4", "(4294967296, 4294967296, 0)", 0)), Code::io_error, "2^63-1");
  expect_refused(parse(plain("|u1", "(9223372036854775808,)", 0)), Code::io_error, "past 2^63-1");
  expect_refused(parse(plain("|u1", "(" + std::string(5000, '9') + ",)", 0)), Code::io_error,
                 "past 2^63-1");
}

TEST(NpyRefuses, NegativeShapes) {
  expect_refused(parse(plain("<f4", "(-1,)", 4)), Code::io_error, "negative extent -1");
  expect_refused(parse(plain("<f4", "(-2, -3)", 24)), Code::io_error, "negative extent -2");
}

TEST(NpyRefuses, TooManyDimensions) {
  std::string shape = "(";
  for (int i = 0; i < 65; ++i) shape += "1, ";
  expect_refused(parse(plain("|u1", shape + ")", 1)), Code::unsupported, "more than 64 dimensions");
  shape.resize(shape.size() - 3);
  EXPECT_TRUE(parse(plain("|u1", shape + ")", 1)).ok());
}

TEST(NpyRefuses, MalformedShapes) {
  for (const char* shape :
       {"(3)", "3", "(,)", "(3,,)", "(3 4)", "(3.0,)", "(a,)", "[3]", "(3,", "("}) {
    expect_refused(parse(plain("|u1", shape, 3)), Code::io_error, "should be");
  }
}

TEST(NpyRefuses, OtherDTypes) {
  expect_refused(parse(plain(">f4", "(1,)", 4)), Code::unsupported, "big-endian");
  expect_refused(parse(plain("<c8", "(1,)", 8)), Code::unsupported, "\"<c8\" is not read");
  expect_refused(parse(plain("|O", "(1,)", 8)), Code::unsupported, "\"|O\" is not read");
  expect_refused(parse(plain("<V2", "(1,)", 2)), Code::unsupported, "bfloat16");
  for (const char* eighths : {"|V1", "<V1", "<f1"}) {
    expect_refused(parse(plain(eighths, "(1,)", 1)), Code::unsupported,
                   "float8 values: .npy has no dtype for them; save float32, or .safetensors");
  }
  expect_refused(
      parse(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "abcd")),
      Code::unsupported, "structured");
}

TEST(NpyRefuses, MalformedHeaders) {
  for (const char* dict :
       {"", "{", "{'descr", "{'descr'", "{'descr':", "{'descr': '<f4'", "{'descr': '<f4',",
        "{'descr': '<f4' 'shape': (1,)}", "{'descr': 4}", "{'fortran_order': false}",
        "{'fortran_order': 0}", "{descr: '<f4'}", "['descr']", "None", "{'descr': '<f\\x34'}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': ()} and more"}) {
    expect_refused(parse(npy(dict)), Code::io_error, "should be");
  }
  expect_refused(parse(npy("{}")), Code::io_error, "no key 'descr'");
  expect_refused(parse(npy("{'descr': '|u1', 'fortran_order': False}")), Code::io_error,
                 "no key 'shape'");
  expect_refused(parse(npy("{'descr': '|u1', 'shape': ()}")), Code::io_error,
                 "no key 'fortran_order'");
  expect_refused(parse(npy("{'descr': '|u1', 'descr': '|u1'}")), Code::io_error, "there twice");
  expect_refused(parse(npy("{'color': 'red'}")), Code::io_error, "\"color\"");
}

TEST(NpyRefuses, DeepNesting) {
  expect_refused(parse(npy("{'descr': " + std::string(60000, '[') + "}")), Code::unsupported,
                 "structured");
  expect_refused(parse(npy("{'shape': " + std::string(60000, '(') + "}")), Code::io_error,
                 "a whole number");
  expect_refused(parse(npy(std::string(60000, '{'))), Code::io_error, "a quoted key");
}

TEST(NpyRefuses, MessagesStayPrintable) {
  const auto result = parse(npy("{'\x1B[31m\xFF': 1}"));
  ASSERT_FALSE(result.ok());
  for (const char c : result.status().message()) {
    EXPECT_TRUE(c >= 0x20 && c < 0x7F) << result.status().message();
  }
}

TEST(NpyRefuses, ToWriteInconsistentTensors) {
  Tensor tensor = tensor_of<float>(DType::f32, {2, 2}, {1, 2, 3});
  const auto result = format_npy(tensor);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), Code::invalid_argument);
  EXPECT_NE(result.status().message().find("holds 12 bytes"), std::string::npos);
}

TEST_F(NpyFile, RoundTrip) {
  const Tensor tensor = tensor_of<float>(DType::f32, {2, 2}, {1, -2, 3.5F, 0});
  const fs::path path = folder_ / "query.npy";
  const Status written = write_tensors(path, {tensor});
  ASSERT_TRUE(written.ok()) << written.message();
  const auto back = read_tensors(path);
  ASSERT_TRUE(back.ok()) << back.status().message();
  ASSERT_EQ(back->size(), 1U);
  EXPECT_EQ(back->front().name, "query");
  EXPECT_EQ(back->front().shape, tensor.shape);
  EXPECT_EQ(back->front().data, tensor.data);
  EXPECT_EQ(files(), 1U);
}

TEST_F(NpyFile, ReplacingKeepsModeAndFollowsLinks) {
  const Tensor tensor = tensor_of<float>(DType::f32, {1}, {7});
  const fs::path path = folder_ / "real.npy";
  ASSERT_TRUE(write_npy(path, tensor_of<float>(DType::f32, {0}, {})).ok());
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  fs::create_symlink("real.npy", folder_ / "link.npy");
  const Status written = write_npy(folder_ / "link.npy", tensor);
  ASSERT_TRUE(written.ok()) << written.message();
  EXPECT_TRUE(fs::is_symlink(folder_ / "link.npy"));
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  const auto back = read_npy(path);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->data, tensor.data);
}

TEST_F(NpyFile, ErrorsNameThePathAndTheReason) {
  expect_refused(read_npy(folder_ / "none.npy"), Code::io_error, "No such file");
  expect_refused(read_npy(folder_ / "none.npy"), Code::io_error, (folder_ / "none.npy").string());
  fs::create_directory(folder_ / "dir.npy");
  expect_refused(read_npy(folder_ / "dir.npy"), Code::io_error, "is a folder");
  ASSERT_EQ(::mkfifo((folder_ / "pipe.npy").c_str(), 0600), 0);
  expect_refused(read_npy(folder_ / "pipe.npy"), Code::io_error, "not a regular file");
  std::ofstream(folder_ / "short.npy", std::ios::binary) << plain("<f4", "(2,)", 4);
  expect_refused(read_npy(folder_ / "short.npy"), Code::io_error, "short.npy: is cut off");
  const auto other = read_tensors(folder_ / "q.txt");
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.status().code(), Code::invalid_argument);
  EXPECT_NE(other.status().message().find(".txt"), std::string::npos);
}

TEST_F(NpyFile, FailedWritesLeaveNothingBehind) {
  const Tensor tensor = tensor_of<float>(DType::f32, {1}, {7});
  const Status nowhere = write_npy(folder_ / "missing" / "a.npy", tensor);
  EXPECT_EQ(nowhere.code(), Code::io_error);
  EXPECT_NE(nowhere.message().find("No such file"), std::string::npos) << nowhere.message();
  EXPECT_NE(nowhere.message().find("a.npy"), std::string::npos) << nowhere.message();

  fs::create_directory(folder_ / "dir.npy");
  EXPECT_EQ(write_npy(folder_ / "dir.npy", tensor).code(), Code::io_error);
  ASSERT_EQ(::mkfifo((folder_ / "pipe.npy").c_str(), 0600), 0);
  EXPECT_EQ(write_npy(folder_ / "pipe.npy", tensor).code(), Code::io_error);
  fs::create_symlink("gone", folder_ / "dangling.npy");
  EXPECT_EQ(write_npy(folder_ / "dangling.npy", tensor).code(), Code::io_error);
  EXPECT_EQ(files(), 3U);

  const Status several = write_tensors(folder_ / "two.npy", {tensor, tensor});
  EXPECT_EQ(several.code(), Code::invalid_argument);
  EXPECT_NE(several.message().find("2 tensors"), std::string::npos);
  EXPECT_EQ(write_tensors(folder_ / "zero.npy", {}).code(), Code::invalid_argument);
  EXPECT_EQ(files(), 3U);
}

TEST_F(NpyFile, AFullDiskLeavesTheOldFile) {
  const fs::path path = folder_ / "a.npy";
  const Tensor old = tensor_of<float>(DType::f32, {1}, {7});
  ASSERT_TRUE(write_npy(path, old).ok());

  // A limit on the size of files stands in for the full disk.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 4096;
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status status =
      write_npy(path, tensor_of<float>(DType::f32, {5000}, std::vector<float>(5000, 1.0F)));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);

  EXPECT_EQ(status.code(), Code::io_error);
  EXPECT_NE(status.message().find("File too large"), std::string::npos) << status.message();
  EXPECT_EQ(files(), 1U);
  const auto back = read_npy(path);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->data, old.data);
}

}  // namespace
}  // namespace attune
