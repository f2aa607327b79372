// Element types of a program's tensors: those of attune::DType, and what kernels of others use too.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace attune::wrap {

// The first eight have the numbers of attune.h; all are those of runtime/abi.h.
enum class Element : std::uint8_t {
  f32,
  f16,
  bf16,
  f64,
  boolean,
  i32,
  i64,
  u8,
  i8,
  i16,
  u16,
  u32,
  u64,
  f8e4m3,
  f8e5m2
};

struct ElementFacts {
  std::string_view name;    // in programs
  std::string_view triton;  // in Triton's signatures
  int bytes;
  std::string_view constant;  // in generated text
  std::string_view c_type;    // of a scalar; empty: no scalar has it
};

inline constexpr std::array<ElementFacts, 15> kElements = {{
    {"f32", "fp32", 4, "ATTUNE_WRAPPED_F32", "float"},
    {"f16", "fp16", 2, "ATTUNE_WRAPPED_F16", ""},
    {"bf16", "bf16", 2, "ATTUNE_WRAPPED_BF16", ""},
    {"f64", "fp64", 8, "ATTUNE_WRAPPED_F64", "double"},
    {"bool", "i1", 1, "ATTUNE_WRAPPED_BOOL", "uint8_t"},
    {"i32", "i32", 4, "ATTUNE_WRAPPED_I32", "int32_t"},
    {"i64", "i64", 8, "ATTUNE_WRAPPED_I64", "int64_t"},
    {"u8", "u8", 1, "ATTUNE_WRAPPED_U8", "uint8_t"},
    {"i8", "i8", 1, "ATTUNE_WRAPPED_I8", "int8_t"},
    {"i16", "i16", 2, "ATTUNE_WRAPPED_I16", "int16_t"},
    {"u16", "u16", 2, "ATTUNE_WRAPPED_U16", "uint16_t"},
    {"u32", "u32", 4, "ATTUNE_WRAPPED_U32", "uint32_t"},
    {"u64", "u64", 8, "ATTUNE_WRAPPED_U64", "uint64_t"},
    {"f8e4m3", "fp8e4nv", 1, "ATTUNE_WRAPPED_F8E4M3", ""},
    {"f8e5m2", "fp8e5", 1, "ATTUNE_WRAPPED_F8E5M2", ""},
}};

[[nodiscard]] constexpr const ElementFacts& facts(Element element) {
  return kElements[static_cast<std::size_t>(element)];
}
[[nodiscard]] constexpr int bytes_of(Element element) { return facts(element).bytes; }

[[nodiscard]] constexpr std::optional<Element> element_named(std::string_view name) {
  for (std::size_t i = 0; i < kElements.size(); ++i) {
    if (kElements[i].name == name) return static_cast<Element>(i);
  }
  return std::nullopt;
}

// "bf16" or what Triton calls it, "fp32"; its own "int1" to "uint64" are spelled by their letters there.
[[nodiscard]] constexpr std::optional<Element> element_of_triton(std::string_view name) {
  for (std::size_t i = 0; i < kElements.size(); ++i) {
    if (kElements[i].triton == name || kElements[i].name == name) return static_cast<Element>(i);
  }
  return std::nullopt;
}

}  // namespace attune::wrap
