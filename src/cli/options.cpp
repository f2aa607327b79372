#include "cli/options.h"

#include <fmt/format.h>

#include <CLI/Validators.hpp>
#include <charconv>
#include <system_error>

namespace attune::cli {

void add_attention_options(CLI::App& app, AttentionOptions& options) {
  app.add_option(
         "INPUT", options.files,
         "One .safetensors file that holds q, k, v, or .npy files named q.npy, k.npy, v.npy; "
         "[B,S,H,D], or [S,H,D] for B = 1. Also read where present: q_scale, k_scale, v_scale, "
         "bias, "
         "alibi_slopes, sink, key_lengths, cu_seqlens_q, cu_seqlens_k, page_table, grad_o, "
         "grad_lse")
      ->required();
  app.add_option("--prefix,--layer-prefix", options.prefix,
                 "Take the tensors whose names start so, e.g. layer0.")
      ->type_name("TEXT");
  app.add_option("--layout", options.layout, "Order of the dimensions of q, k, v, grad_o and o")
      ->check(CLI::IsMember({"bshd", "bhsd"}))
      ->capture_default_str();
  app.add_option("--dtype", options.dtype, "Cast q, k, v and grad_o before computing")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "f8e4m3"}));
  app.add_option("--mask", options.mask, "Which keys a query sees")
      ->check(CLI::IsMember({"none", "causal-top-left", "causal-bottom-right"}))
      ->capture_default_str();
  app.add_option("--window", options.window,
                 "Keys to the left and right of the diagonal; -1 is unbounded, e.g. 256,0")
      ->type_name("L,R");
  app.add_option("--diagonal", options.diagonal, "Where the diagonal of a window without causal is")
      ->check(CLI::IsMember({"top-left", "bottom-right"}))
      ->capture_default_str();
  app.add_option("--offset", options.offset, "Moves the diagonal to the right by N keys")
      ->type_name("N");
  app.add_option("--scale", options.scale, "Factor of q.k; default 1/sqrt(D)")->type_name("X");
  app.add_option("--softcap", options.softcap, "Scores become C tanh(score / C); 0 is none")
      ->type_name("C");
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto end = text.find(separator);
    const std::string_view part = text.substr(0, end);
    if (!part.empty()) parts.emplace_back(part);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return parts;
}

Expected<std::vector<std::int64_t>> integers_from(std::string_view text) {
  std::vector<std::int64_t> values;
  for (const std::string& part : split(text, ',')) {
    std::int64_t value = 0;
    const char* end = part.data() + part.size();
    const auto [stop, error] = std::from_chars(part.data(), end, value);
    if (error != std::errc() || stop != end) {
      return Status(Code::invalid_argument, fmt::format("'{}' is not a whole number", part));
    }
    values.push_back(value);
  }
  return values;
}

std::optional<DType> float_dtype_from(std::string_view text) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f8e4m3}) {
    if (text == to_string(dtype)) return dtype;
  }
  return std::nullopt;
}

Expected<Mask> mask_from(const AttentionOptions& options) {
  Mask mask;
  mask.causal = options.mask != "none";
  const std::string_view corner =
      mask.causal ? std::string_view(options.mask).substr(7) : std::string_view(options.diagonal);
  mask.diagonal = corner == "top-left" ? Diagonal::top_left : Diagonal::bottom_right;
  mask.offset = options.offset;
  const auto sides = integers_from(options.window);
  if (!sides.ok() || sides->size() != 2) {
    return Status(Code::invalid_argument,
                  fmt::format("--window {} is not two whole numbers: left,right, e.g. 256,0; -1 is "
                              "unbounded",
                              options.window));
  }
  mask.left = sides->at(0);
  mask.right = sides->at(1);
  return mask;
}

}  // namespace attune::cli
