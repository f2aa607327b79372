// The options that say which tensors to read and what to compute with them; `run` and `map` share
// them.
#pragma once

#include <CLI/App.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attune::cli {

struct AttentionOptions {
  std::vector<std::string> files;
  std::string prefix;  // selects tensors of a .safetensors file by the start of their names
  std::string layout = "bshd";  // or "bhsd"
  std::string dtype;            // cast q, k, v and grad_o; empty: as they are
  std::string mask = "none";
  std::string diagonal = "bottom-right";
  std::string window = "-1,-1";
  std::int64_t offset = 0;
  std::optional<double> scale;
  double softcap = 0;
};

void add_attention_options(CLI::App& app, AttentionOptions& options);

// --mask, --diagonal, --window and --offset together.
[[nodiscard]] Expected<Mask> mask_from(const AttentionOptions& options);

// "f32", "f16" or "bf16"; nothing for any other text.
[[nodiscard]] std::optional<DType> float_dtype_from(std::string_view text);

// "1,2,16" -> 1, 2, 16. Refused unless every part is a whole number within 64 bits.
[[nodiscard]] Expected<std::vector<std::int64_t>> integers_from(std::string_view text);
// "a,b" -> "a", "b"; empty parts are left out.
[[nodiscard]] std::vector<std::string> split(std::string_view text, char separator);

}  // namespace attune::cli
