#include "wrap/binary_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>

#include "cubin/cubin_parameters.h"
#include "cubin/elf.h"
#include "io/file.h"
#include "io/tensor.h"

namespace attune::wrap {

namespace {

constexpr std::size_t kMostParameters = 4096;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Words and single signs of a PTX text, without comments.
class Words {
 public:
  explicit Words(std::string_view text) : rest_(text) {}

  std::string_view next() {
    skip();
    if (rest_.empty()) return {};
    std::size_t length = 1;
    if (!is_sign(rest_.front())) {
      while (length < rest_.size() && !is_space(rest_[length]) && !is_sign(rest_[length])) ++length;
    }
    const std::string_view word = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return word;
  }

 private:
  static bool is_sign(char c) { return std::strchr("(){}[],;", c) != nullptr; }

  void skip() {
    while (!rest_.empty()) {
      if (is_space(rest_.front())) {
        rest_.remove_prefix(1);
      } else if (rest_.starts_with("//")) {
        rest_.remove_prefix(std::min(rest_.find('\n'), rest_.size()));
      } else if (rest_.starts_with("/*")) {
        const std::size_t end = rest_.find("*/", 2);
        rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 2);
      } else {
        return;
      }
    }
  }

  std::string_view rest_;
};

std::optional<std::uint32_t> number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::uint32_t> bytes_of_type(std::string_view type) {
  if (type.size() < 3 || type.front() != '.') return std::nullopt;
  if (std::strchr("busf", type[1]) == nullptr) return std::nullopt;
  const auto bits = number(type.substr(2));
  if (!bits || *bits % 8 != 0 || *bits == 0 || *bits > 128) return std::nullopt;
  return *bits / 8;
}

// After "(": ".param .u64 .ptr .global .align 1 name", ".param .align 64 .b8 name[128]", ...
Expected<std::vector<std::uint32_t>> read_parameters_of(Words& words, std::string_view entry) {
  std::vector<std::uint32_t> all;
  std::uint32_t bytes = 0;
  bool any = false;
  for (std::string_view word = words.next(); !word.empty(); word = words.next()) {
    if (word == "," || word == ")") {
      if (any && bytes == 0) break;
      if (any) all.push_back(bytes);
      if (word == ")") return all;
      if (all.size() > kMostParameters) break;
      bytes = 0;
      any = false;
    } else if (word == ".param") {
      any = true;
    } else if (word == ".align") {
      (void)words.next();
    } else if (word == "[") {
      const auto count = number(words.next());
      if (!count || *count == 0 || *count > 65536) break;
      bytes *= *count;
    } else if (const auto size = bytes_of_type(word)) {
      bytes = *size;
    }
  }
  return Status{Code::io_error,
                fmt::format("is PTX whose parameters of {} make no sense", in_quotes(entry))};
}

Status read_cubin(Binary& binary, bool target_declared) {
  const auto target = read_target(binary.bytes);
  if (!target.ok()) return target.status();
  if (!target_declared) {
    binary.target = *target;
  } else if (binary.target.arch != target->arch) {
    return {Code::invalid_argument, fmt::format("is for {}, and the program says {}",
                                                to_string(*target), to_string(binary.target))};
  } else if (target->variant != 0) {
    binary.target.variant = target->variant;
  }
  const auto kernels = read_kernels(binary.bytes);
  if (!kernels.ok()) return kernels.status();
  if (binary.symbol.empty() && kernels->size() == 1) binary.symbol = kernels->front();
  if (std::find(kernels->begin(), kernels->end(), binary.symbol) == kernels->end()) {
    std::vector<std::string> names;
    for (const std::string_view name : *kernels) {
      if (names.size() < 8) names.push_back(in_quotes(name));
    }
    return {Code::invalid_argument,
            fmt::format(
                "has no kernel {}; it has {}", in_quotes(binary.symbol),
                names.empty() ? std::string("none") : fmt::format("{}", fmt::join(names, ", ")))};
  }
  auto parameters = read_parameters(binary.bytes, binary.symbol);
  if (!parameters.ok()) return parameters.status();
  binary.parameter_bytes = *std::move(parameters);
  const auto required = read_required_threads(binary.bytes, binary.symbol);
  if (!required.ok()) return required.status();
  const auto& [x, y, z] = binary.launch.block;
  if (*required && **required != static_cast<std::uint64_t>(x * y * z)) {
    return {Code::invalid_argument,
            fmt::format("is compiled for blocks of {} threads, and the launch has {} x {} x {}",
                        **required, x, y, z)};
  }
  return {};
}

Status read_text(Binary& binary, bool target_declared) {
  const std::string_view text(reinterpret_cast<const char*>(binary.bytes.data()),
                              binary.bytes.size());
  auto entry = read_ptx(text, binary.symbol);
  if (!entry.ok()) return entry.status();
  if (target_declared && binary.target.arch != entry->target.arch) {
    return {Code::invalid_argument,
            fmt::format("is for {}, and the program says {}", to_string(entry->target),
                        to_string(binary.target))};
  }
  binary.target = entry->target;
  binary.parameter_bytes = std::move(entry->parameter_bytes);
  return {};
}

}  // namespace

Expected<PtxEntry> read_ptx(std::string_view text, std::string_view entry) {
  Words words(text);
  PtxEntry result;
  bool has_target = false;
  std::vector<std::string> others;
  for (std::string_view word = words.next(); !word.empty(); word = words.next()) {
    if (word == ".target") {
      const auto target = target_from(words.next());
      has_target = target.has_value();
      if (target) result.target = *target;
    }
    if (word != ".entry") continue;
    const std::string_view name = words.next();
    if (name != entry) {
      if (others.size() < 8) others.push_back(in_quotes(name));
      continue;
    }
    if (!has_target) return Status{Code::io_error, "is PTX without a .target that is known"};
    const std::string_view open = words.next();
    if (open == "(") {
      auto parameters = read_parameters_of(words, entry);
      if (!parameters.ok()) return parameters.status();
      result.parameter_bytes = *std::move(parameters);
    }
    return result;
  }
  return Status{Code::invalid_argument,
                fmt::format("has no kernel {}; it has {}", in_quotes(entry),
                            others.empty() ? "none" : fmt::format("{}", fmt::join(others, ", ")))};
}

Expected<BinaryForm> form_of(std::span<const std::byte> bytes) {
  constexpr std::array<std::uint8_t, 4> kElf = {0x7f, 'E', 'L', 'F'};
  constexpr std::uint32_t kFatbin = 0xba55ed50U;
  if (bytes.size() >= kElf.size() && std::memcmp(bytes.data(), kElf.data(), kElf.size()) == 0) {
    return BinaryForm::cubin;
  }
  if (number_at<std::uint32_t>(bytes, 0) == kFatbin) return BinaryForm::fatbin;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.find(".version") != std::string_view::npos &&
      text.find(".entry") != std::string_view::npos) {
    return BinaryForm::ptx;
  }
  return Status{Code::invalid_argument, "is neither a cubin nor PTX nor a fatbin"};
}

Status read_binary(Binary& binary) {
  const bool target_declared = binary.target_declared;
  const auto form = form_of(binary.bytes);
  if (!form.ok()) return in_file(binary.path, form.status());
  binary.form = *form;
  switch (*form) {
    case BinaryForm::cubin:
      return in_file(binary.path, read_cubin(binary, target_declared));
    case BinaryForm::ptx:
      return in_file(binary.path, read_text(binary, target_declared));
    case BinaryForm::fatbin:
      break;
  }
  if (!target_declared) binary.target = {0, 0};
  if (!binary.symbol.empty()) return {};
  return in_file(binary.path, {Code::invalid_argument,
                               "is a fatbin: which kernel of it is meant? say \"entry\""});
}

}  // namespace attune::wrap
