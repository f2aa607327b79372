// Text -> Problem. One table of keys; every word is looked up there, so that print.cpp and this
// file are all there is to the text form.
#include "problem/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <bitset>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace attune {
namespace {

// The longest valid text is about a quarter of this.
constexpr std::size_t kMaxText = 4096;

// Why a value can't be read, e.g. "an integer"; empty when it could.
using Wanted = std::string;

Wanted read(std::string_view text, std::int64_t& out) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, out);
  if (error == std::errc::result_out_of_range && stop == end) return "an integer below 2^63";
  return error == std::errc{} && stop == end ? "" : "an integer";
}

Wanted read(std::string_view text, double& out) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, out);
  if (error == std::errc::result_out_of_range && stop == end) {
    return "a number within the range of float64";
  }
  return error == std::errc{} && stop == end ? "" : "a number";
}

// "1,2,3" into a fixed number of integers.
template <std::size_t N>
Wanted read(std::string_view text, std::array<std::int64_t, N>& out) {
  for (std::size_t n = 0; n < N; ++n) {
    const std::size_t comma = text.find(',');
    if ((comma == std::string_view::npos) != (n + 1 == N)) {
      return fmt::format("{} integers with commas between them", N);
    }
    if (Wanted wanted = read(text.substr(0, comma), out[n]); !wanted.empty()) {
      return fmt::format("{} integers with commas between them, each {}", N, wanted);
    }
    if (comma != std::string_view::npos) text.remove_prefix(comma + 1);
  }
  return "";
}

template <auto Member>
Wanted number(Problem& p, std::string_view text) {
  return read(text, p.*Member);
}

template <auto Member>
Wanted flag(Problem& p, std::string_view) {
  p.*Member = true;
  return "";
}

Wanted dtype(Problem& p, std::string_view text) {
  const std::optional<DType> found = dtype_from(text);
  if (!found) return "f32, f16, bf16 or f8e4m3";
  p.dtype = *found;  // validate() says which of them attention computes on
  return "";
}

Wanted scale(Problem& p, std::string_view text) { return read(text, p.scale.emplace()); }

Wanted mask(Problem& p, std::string_view text) {
  if (text == "none") return "";
  if (text != "causal-top-left" && text != "causal-bottom-right") {
    return "none, causal-top-left or causal-bottom-right";
  }
  p.mask.causal = true;
  p.mask.diagonal = text == "causal-top-left" ? Diagonal::top_left : Diagonal::bottom_right;
  return "";
}

Wanted diagonal(Problem& p, std::string_view text) {
  if (text != "top-left" && text != "bottom-right") return "top-left or bottom-right";
  p.mask.diagonal = text == "top-left" ? Diagonal::top_left : Diagonal::bottom_right;
  return "";
}

Wanted offset(Problem& p, std::string_view text) { return read(text, p.mask.offset); }

Wanted window(Problem& p, std::string_view text) {
  std::array<std::int64_t, 2> sides{};
  Wanted wanted = read(text, sides);
  p.mask.left = sides[0];
  p.mask.right = sides[1];
  return wanted;
}

Wanted bias(Problem& p, std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const std::optional<DType> found = dtype_from(name);
  const Wanted wanted =
      "bool, f32, f16 or bf16, perhaps followed by its dimensions, e.g. bf16:1hqk with a 1 in "
      "place of each broadcast one";
  if (!found || (*found != DType::boolean && *found != DType::f32 && *found != DType::f16 &&
                 *found != DType::bf16)) {
    return wanted;
  }
  p.bias.kind = *found == DType::boolean ? BiasKind::boolean : BiasKind::additive;
  p.bias.dtype = *found;
  if (colon == std::string_view::npos) return "";
  const std::string_view dims = text.substr(colon + 1);
  constexpr std::string_view kDims = "bhqk";
  const std::array broadcast = {&p.bias.broadcast_b, &p.bias.broadcast_h, &p.bias.broadcast_q,
                                &p.bias.broadcast_k};
  if (dims.size() != kDims.size()) return wanted;
  for (std::size_t n = 0; n < kDims.size(); ++n) {
    if (dims[n] != kDims[n] && dims[n] != '1') return wanted;
    *broadcast[n] = dims[n] == '1';
  }
  return "";
}

Wanted bias_grad(Problem& p, std::string_view) {
  p.bias.grad = true;
  return "";
}

Wanted bias_aligned(Problem& p, std::string_view) {
  p.bias.aligned = true;
  return "";
}

Wanted alibi(Problem& p, std::string_view text) {
  if (text != "head" && text != "batch-head") return "head or batch-head";
  p.alibi = text == "head" ? PerHead::head : PerHead::batch_head;
  return "";
}

Wanted dropout_stream(Problem& p, std::string_view text) {
  if (text != "curand" && text != "fa2") return "curand or fa2";
  p.dropout_stream = text == "fa2" ? DropoutStream::fa2 : DropoutStream::curand;
  return "";
}

Wanted packed(Problem& p, std::string_view text) {
  if (text != "q" && text != "k" && text != "qk") return "q, k or qk";
  p.packed_q = text != "k";
  p.packed_k = text != "q";
  return "";
}

Wanted lse(Problem& p, std::string_view text) {
  if (!text.empty() && text != "plain" && text != "padded32") return "plain or padded32";
  p.lse = text == "padded32" ? LseLayout::padded32 : LseLayout::plain;
  return "";
}

Wanted device(Problem& p, std::string_view text) {
  if (text == "auto") return "";
  if (text != "cpu" && text != "cuda") return "cpu, cuda or auto";
  p.device = text == "cpu" ? Device::cpu : Device::cuda;
  return "";
}

enum class Form : std::uint8_t { value, flag, either };

struct Key {
  std::string_view name;
  Form form;
  Wanted (*set)(Problem&, std::string_view);
};

constexpr Form kValue = Form::value;
constexpr std::array kKeys = {
    Key{"dtype", kValue, dtype},
    Key{"b", kValue, number<&Problem::b>},
    Key{"hq", kValue, number<&Problem::hq>},
    Key{"hkv", kValue, number<&Problem::hkv>},
    Key{"sq", kValue, number<&Problem::sq>},
    Key{"sk", kValue, number<&Problem::sk>},
    Key{"d", kValue, number<&Problem::d>},
    Key{"dv", kValue, number<&Problem::dv>},
    Key{"scale", kValue, scale},
    Key{"descale", Form::flag, flag<&Problem::descale>},
    Key{"softcap", kValue, number<&Problem::softcap>},
    Key{"mask", kValue, mask},
    Key{"diagonal", kValue, diagonal},
    Key{"offset", kValue, offset},
    Key{"window", kValue, window},
    Key{"bias", kValue, bias},
    Key{"bias_grad", Form::flag, bias_grad},
    Key{"bias_aligned", Form::flag, bias_aligned},
    Key{"alibi", kValue, alibi},
    Key{"alibi_grad", Form::flag, flag<&Problem::alibi_grad>},
    Key{"sink", Form::flag, flag<&Problem::sink>},
    Key{"sink_grad", Form::flag, flag<&Problem::sink_grad>},
    Key{"dropout", kValue, number<&Problem::dropout>},
    Key{"dropout_stream", kValue, dropout_stream},
    Key{"key_lengths", Form::flag, flag<&Problem::key_lengths>},
    Key{"packed", kValue, packed},
    Key{"total_q", kValue, number<&Problem::total_q>},
    Key{"total_k", kValue, number<&Problem::total_k>},
    Key{"page_size", kValue, number<&Problem::page_size>},
    Key{"pages", kValue, number<&Problem::pages>},
    Key{"lse", Form::either, lse},
    Key{"lse_grad", Form::flag, flag<&Problem::lse_grad>},
    Key{"deterministic", Form::flag, flag<&Problem::deterministic>},
    Key{"q_strides", kValue, number<&Problem::q_strides>},
    Key{"k_strides", kValue, number<&Problem::k_strides>},
    Key{"v_strides", kValue, number<&Problem::v_strides>},
    Key{"o_strides", kValue, number<&Problem::o_strides>},
    Key{"align", kValue, number<&Problem::alignment>},
    Key{"device", kValue, device},
};

std::size_t index_of(std::string_view name) {
  const auto* found =
      std::find_if(kKeys.begin(), kKeys.end(), [&](const Key& key) { return key.name == name; });
  return static_cast<std::size_t>(found - kKeys.begin());
}

constexpr std::array<std::string_view, 2> kKinds = {"forward", "backward"};

// Reads word after word; the first that can't be read ends it.
class Parser {
 public:
  Expected<Problem> run(std::string_view text) {
    if (text.size() > kMaxText) {
      return refuse(
          fmt::format("the problem text has {} bytes; at most {} are read", text.size(), kMaxText));
    }
    std::size_t at = 0;
    int count = 0;
    while (true) {
      at = text.find_first_not_of(kBlanks, at);
      if (at == std::string_view::npos) break;
      const std::size_t end = std::min(text.find_first_of(kBlanks, at), text.size());
      const std::string_view word = text.substr(at, end - at);
      std::string problem = count == 0 ? kind(word) : setting(word);
      ++count;
      if (!problem.empty()) {
        return refuse(
            fmt::format("word {} (character {}), {}: {}", count, at + 1, quoted(word), problem));
      }
      at = end;
    }
    if (count == 0) return refuse("the problem text is empty; it starts with forward or backward");
    if (seen("diagonal") && p_.mask.causal) {
      return refuse("diagonal is for windows without causal: the mask already says where it lies");
    }
    fill_in();
    if (Status status = validate(p_); !status.ok()) return status;
    return p_;
  }

 private:
  static constexpr std::string_view kBlanks = " \t\r\n";

  static Status refuse(std::string message) { return {Code::invalid_argument, std::move(message)}; }

  std::string kind(std::string_view word) {
    if (word == "forward") return "";
    if (word == "backward") {
      p_.kind = Kind::backward;
      return "";
    }
    const std::string_view near = nearest(word, kKinds);
    std::string message = "the first word is the kind, forward or backward";
    if (!near.empty()) message += fmt::format("; did you mean {}?", near);
    return message;
  }

  std::string setting(std::string_view word) {
    const std::size_t equals = word.find('=');
    const bool has_value = equals != std::string_view::npos;
    const std::string_view name = word.substr(0, equals);
    const std::string_view value = has_value ? word.substr(equals + 1) : std::string_view{};
    const std::size_t index = index_of(name);
    if (index == kKeys.size()) return unknown(name);
    const Key& key = kKeys[index];
    if (seen_[index]) return fmt::format("{} was given before", name);
    seen_[index] = true;
    if (key.form == Form::flag && has_value) {
      return fmt::format("{} takes no value: write it alone, or leave it out", name);
    }
    if (has_value ? value.empty() : key.form == Form::value) {
      return fmt::format("{} needs a value: {}=...", name, name);
    }
    const Wanted wanted = key.set(p_, value);
    if (wanted.empty()) return "";
    return fmt::format("{} takes {}, not {}", name, wanted, quoted(value));
  }

  static std::string unknown(std::string_view name) {
    std::vector<std::string_view> names;
    names.reserve(kKeys.size());
    for (const Key& key : kKeys) names.push_back(key.name);
    std::string message = fmt::format("there is no key {}", quoted(name));
    const std::string_view near = nearest(name, names);
    if (!near.empty()) message += fmt::format("; did you mean {}?", near);
    return message;
  }

  [[nodiscard]] bool seen(std::string_view name) const { return seen_[index_of(name)]; }

  // What a text may leave out although the struct has no better default for it.
  void fill_in() {
    if (!seen("hkv")) p_.hkv = p_.hq;
    if (!seen("sk")) p_.sk = p_.sq;
    if (!seen("dv")) p_.dv = p_.d;
    if (p_.packed_q && !seen("total_q")) p_.total_q = times_b(p_.sq);
    if (p_.packed_k && !seen("total_k")) p_.total_k = times_b(p_.sk);
    if (p_.page_size > 0 && !seen("pages")) {
      p_.pages = times_b(p_.sk / p_.page_size + (p_.sk % p_.page_size > 0 ? 1 : 0));
    }
    // The backward pass always reads an LSE.
    if (p_.kind == Kind::backward && !seen("lse")) p_.lse = LseLayout::plain;
  }

  // Stops at INT64_MAX, which validate() then refuses.
  [[nodiscard]] std::int64_t times_b(std::int64_t n) const {
    std::int64_t product = 0;
    const bool overflow = __builtin_mul_overflow(p_.b, n, &product);
    return overflow ? std::numeric_limits<std::int64_t>::max() : product;
  }

  Problem p_;
  std::bitset<kKeys.size()> seen_;
};

}  // namespace

std::optional<DType> dtype_from(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64, DType::boolean,
                            DType::i32, DType::i64, DType::u8, DType::f8e4m3}) {
    if (to_string(dtype) == name) return dtype;
  }
  return std::nullopt;
}

std::string quoted(std::string_view text, std::size_t limit) {
  std::string out = "\"";
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  out += text.size() > limit ? "...\"" : "\"";
  return out;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Names are short; longer words are far from all of them anyway.
  constexpr std::size_t kLongest = 32;
  if (a.size() > kLongest || b.size() > kLongest) return std::max(a.size(), b.size());
  std::array<std::array<std::size_t, kLongest + 1>, kLongest + 1> cost{};
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1,
                             cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

Expected<Problem> parse(std::string_view text) { return Parser().run(text); }

}  // namespace attune
