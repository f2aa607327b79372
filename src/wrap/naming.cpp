#include "wrap/naming.h"

#include <fmt/format.h>

#include <algorithm>

#include "wrap/reading.h"

namespace attune::wrap {

namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Locals of generated functions, beside what is_reserved() knows.
constexpr std::string_view kLocals[] = {"run",      "s",    "arguments", "conditions",
                                        "variants", "grid", "fits"};

}  // namespace

std::string as_identifier(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, 60)) {
    if (is_letter(c) || is_digit(c)) {
      text += c;
    } else if (!text.empty() && text.back() != '_') {
      text += '_';
    }
  }
  while (text.ends_with('_')) text.pop_back();
  if (text.empty() || is_digit(text.front())) text = "t" + text;
  const bool local = std::find(std::begin(kLocals), std::end(kLocals), text) != std::end(kLocals);
  if (local || is_reserved(text)) text += "_";
  return text;
}

std::string Names::unique(std::string_view name) {
  const std::string base = as_identifier(name);
  std::string text = base;
  for (int i = 2; !taken_.insert(text).second; ++i) {
    text = fmt::format("{}{}{}", base, base.ends_with('_') ? "" : "_", i);
  }
  return text;
}

std::string as_type(std::string_view name) {
  std::string text;
  bool begins = true;
  for (const char c : name) {
    if (c == '_') {
      begins = true;
      continue;
    }
    text += begins && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    begins = false;
  }
  return text;
}

std::string as_macro(std::string_view name) {
  std::string text(name);
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

std::string as_literal(std::string_view text) {
  std::string literal = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      literal += '\\';
      literal += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      literal += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
    } else {
      literal += c;
    }
  }
  return literal + '"';
}

std::string as_comment(std::string_view text) {
  std::string comment(text);
  for (char& c : comment) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  while (comment.ends_with('\\')) comment.pop_back();
  std::size_t at = 0;
  while ((at = comment.find("*/", at)) != std::string::npos) comment.replace(at, 2, "* /");
  return comment;
}

std::string as_double(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string as_float(double value) {
  std::string text = fmt::format("{}", static_cast<float>(value));
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text + "F";
}

std::string over_sizes(const Expression& expression) {
  return to_cpp(expression, [](const std::string& name) { return "s." + name; });
}

std::string list_over_sizes(const std::vector<Expression>& list) {
  std::string text = "{";
  for (const Expression& one : list) {
    if (text.size() > 1) text += ", ";
    text += over_sizes(one);
  }
  return (list.empty() ? text + "1" : text) + "}";
}

}  // namespace attune::wrap
