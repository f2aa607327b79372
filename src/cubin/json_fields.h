// Reading JSON that may be anything: a field is there with the right type, or there is none.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cubin/cubin_facts.h"
#include "cubin/target.h"

namespace attune {

[[nodiscard]] inline const nlohmann::json* field(const nlohmann::json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

[[nodiscard]] inline std::optional<std::string> text_field(const nlohmann::json& object,
                                                           const char* name) {
  const nlohmann::json* value = field(object, name);
  if (value == nullptr || !value->is_string()) return std::nullopt;
  return value->get<std::string>();
}

[[nodiscard]] inline std::optional<std::uint64_t> count_field(const nlohmann::json& object,
                                                              const char* name) {
  const nlohmann::json* value = field(object, name);
  if (value == nullptr || !value->is_number_unsigned()) return std::nullopt;
  return value->get<std::uint64_t>();
}

[[nodiscard]] inline std::optional<double> number_field(const nlohmann::json& object,
                                                        const char* name) {
  const nlohmann::json* value = field(object, name);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->get<double>();
}

[[nodiscard]] inline std::optional<Target> target_field(const nlohmann::json& object,
                                                        const char* name) {
  const auto text = text_field(object, name);
  return text ? target_from(*text) : std::nullopt;
}

[[nodiscard]] inline nlohmann::json facts_json(const CubinFacts& facts) {
  return {{"registers", facts.registers},     {"shared_bytes", facts.shared_bytes},
          {"local_bytes", facts.local_bytes}, {"parameter_bytes", facts.parameter_bytes},
          {"max_threads", facts.max_threads}, {"code_bytes", facts.code_bytes}};
}

// Numbers that are missing or too large are 0: facts inform, nothing relies on this copy of them.
[[nodiscard]] inline CubinFacts facts_field(const nlohmann::json& object, const char* name) {
  const nlohmann::json* json = field(object, name);
  if (json == nullptr) return {};
  const auto number = [&](const char* key) {
    const std::uint64_t value = count_field(*json, key).value_or(0);
    return static_cast<std::uint32_t>(value > 0xffffffffu ? 0 : value);
  };
  return {number("registers"),       number("shared_bytes"), number("local_bytes"),
          number("parameter_bytes"), number("max_threads"),  number("code_bytes")};
}

}  // namespace attune
