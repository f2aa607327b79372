#include "wrap/reading.h"

#include <algorithm>

#include "io/tensor.h"

namespace attune::wrap {

namespace {

using Kind = JsonNode::Kind;

// Keywords of C and C++, what the generated header and source name themselves, and macros.
constexpr std::array kReserved = std::to_array<std::string_view>({"alignas",
                                                                  "alignof",
                                                                  "and",
                                                                  "and_eq",
                                                                  "asm",
                                                                  "auto",
                                                                  "bitand",
                                                                  "bitor",
                                                                  "bool",
                                                                  "break",
                                                                  "case",
                                                                  "catch",
                                                                  "char",
                                                                  "class",
                                                                  "compl",
                                                                  "const",
                                                                  "const_cast",
                                                                  "constexpr",
                                                                  "continue",
                                                                  "decltype",
                                                                  "default",
                                                                  "delete",
                                                                  "do",
                                                                  "double",
                                                                  "dynamic_cast",
                                                                  "else",
                                                                  "enum",
                                                                  "errno",
                                                                  "explicit",
                                                                  "export",
                                                                  "extern",
                                                                  "false",
                                                                  "float",
                                                                  "for",
                                                                  "friend",
                                                                  "goto",
                                                                  "if",
                                                                  "inline",
                                                                  "int",
                                                                  "linux",
                                                                  "long",
                                                                  "main",
                                                                  "mutable",
                                                                  "namespace",
                                                                  "new",
                                                                  "noexcept",
                                                                  "not",
                                                                  "not_eq",
                                                                  "nullptr",
                                                                  "operator",
                                                                  "or",
                                                                  "or_eq",
                                                                  "private",
                                                                  "protected",
                                                                  "public",
                                                                  "register",
                                                                  "reinterpret_cast",
                                                                  "restrict",
                                                                  "return",
                                                                  "short",
                                                                  "signed",
                                                                  "sizeof",
                                                                  "static",
                                                                  "static_assert",
                                                                  "static_cast",
                                                                  "stderr",
                                                                  "stdin",
                                                                  "stdout",
                                                                  "stream",
                                                                  "struct",
                                                                  "struct_size",
                                                                  "switch",
                                                                  "template",
                                                                  "this",
                                                                  "thread_local",
                                                                  "throw",
                                                                  "true",
                                                                  "try",
                                                                  "typedef",
                                                                  "typeid",
                                                                  "typename",
                                                                  "union",
                                                                  "unix",
                                                                  "unsigned",
                                                                  "using",
                                                                  "virtual",
                                                                  "void",
                                                                  "volatile",
                                                                  "wchar_t",
                                                                  "while",
                                                                  "workspace",
                                                                  "workspace_bytes",
                                                                  "xor",
                                                                  "xor_eq",
                                                                  "NULL",
                                                                  "EOF",
                                                                  "ceildiv",
                                                                  "min",
                                                                  "max",
                                                                  "std",
                                                                  "attune"});

}  // namespace

std::string in(std::string_view path, std::string_view field) {
  return path.empty() ? std::string(field) : fmt::format("{}.{}", path, field);
}
std::string in(std::string_view path, std::size_t index) {
  return fmt::format("{}[{}]", path, index);
}

bool is_reserved(std::string_view word) {
  return std::find(kReserved.begin(), kReserved.end(), word) != kReserved.end() ||
         word.starts_with('_') || word.find("__") != std::string_view::npos ||
         word.starts_with("ATTUNE");
}

void Reading::refuse(const JsonNode& node, std::string_view path, std::string_view why) {
  if (!status_.ok()) return;
  status_ = at(node.place, path.empty() ? std::string(why) : fmt::format("{}: {}", path, why));
}

bool Reading::object(const JsonNode& node, std::string_view path) {
  if (node.kind == Kind::object) return true;
  refuse(node, path, fmt::format("an object was expected, and not {}", describe(node)));
  return false;
}

bool Reading::object(const JsonNode& node, std::string_view path,
                     std::initializer_list<std::string_view> known) {
  if (!object(node, path)) return false;
  for (const JsonField& field : node.fields) {
    if (std::find(known.begin(), known.end(), field.name) != known.end()) continue;
    std::string names;
    for (const std::string_view name : known) {
      names += names.empty() ? "" : ", ";
      names += name;
    }
    JsonNode here;
    here.place = field.place;
    refuse(here, path,
           fmt::format("there is no field {}; known: {}", in_quotes(field.name), names));
    return false;
  }
  return true;
}

const JsonNode* Reading::required(const JsonNode& node, std::string_view path,
                                  std::string_view name) {
  const JsonNode* found = node.field(name);
  if (found == nullptr) refuse(node, path, fmt::format("the field \"{}\" is missing", name));
  return found;
}

std::string Reading::text(const JsonNode& node, std::string_view path) {
  constexpr std::size_t kLongest = 4096;
  if (node.kind != Kind::text) {
    refuse(node, path, fmt::format("a text was expected, and not {}", describe(node)));
    return {};
  }
  if (node.text.empty() || node.text.size() > kLongest) {
    refuse(node, path, fmt::format("a text of 1 to {} characters was expected", kLongest));
    return {};
  }
  // Names end up in comments and in strings of generated text.
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(node.text.begin(), node.text.end(), control)) {
    refuse(node, path, fmt::format("{} has a control character", in_quotes(node.text)));
    return {};
  }
  return node.text;
}

void Reading::check_identifier(const JsonNode& node, std::string_view path, std::string_view name) {
  if (!is_identifier(name)) {
    refuse(node, path,
           fmt::format("{} is no name: letters, digits and _ make one, at most 64, and "
                       "no digit first",
                       in_quotes(name)));
  } else if (is_reserved(name)) {
    refuse(node, path,
           fmt::format("{} is a word that C++ or the generated text uses for itself",
                       in_quotes(name)));
  }
}

std::string Reading::identifier(const JsonNode& node, std::string_view path) {
  std::string name = text(node, path);
  if (status_.ok()) check_identifier(node, path, name);
  return name;
}

bool Reading::flag(const JsonNode& node, std::string_view path) {
  if (node.kind != Kind::boolean) {
    refuse(node, path, fmt::format("true or false was expected, and not {}", describe(node)));
  }
  return node.boolean;
}

bool Reading::flag_or(const JsonNode& object, std::string_view path, std::string_view name,
                      bool standard) {
  const JsonNode* node = object.field(name);
  return node == nullptr ? standard : flag(*node, in(path, name));
}

std::int64_t Reading::integer(const JsonNode& node, std::string_view path, std::int64_t least,
                              std::int64_t most) {
  if (node.kind != Kind::integer) {
    refuse(node, path, fmt::format("a whole number was expected, and not {}", describe(node)));
    return least;
  }
  if (node.integer < least || node.integer > most) {
    refuse(node, path, fmt::format("{} is not from {} to {}", node.integer, least, most));
    return least;
  }
  return node.integer;
}

std::int64_t Reading::integer_or(const JsonNode& object, std::string_view path,
                                 std::string_view name, std::int64_t least, std::int64_t most,
                                 std::int64_t standard) {
  const JsonNode* node = object.field(name);
  return node == nullptr ? standard : integer(*node, in(path, name), least, most);
}

Expression Reading::expression(const JsonNode& node, std::string_view path) {
  if (node.kind == Kind::integer) return {node.integer};
  if (node.kind != Kind::text) {
    refuse(node, path,
           fmt::format("a whole number or an expression was expected, and not {}", describe(node)));
    return {};
  }
  auto parsed = parse_expression(node.text);
  if (parsed.ok()) return *std::move(parsed);
  refuse(node, path, fmt::format("{}: {}", in_quotes(node.text), parsed.status().message()));
  return {};
}

std::vector<Expression> Reading::expressions(const JsonNode& node, std::string_view path,
                                             std::size_t most) {
  std::vector<Expression> all;
  if (node.kind != Kind::array || node.elements.size() > most) {
    refuse(node, path,
           fmt::format("an array of at most {} was expected, and not {}", most,
                       node.kind == Kind::array ? fmt::format("one of {}", node.elements.size())
                                                : describe(node)));
    return all;
  }
  for (std::size_t i = 0; i < node.elements.size(); ++i) {
    all.push_back(expression(node.elements[i], in(path, i)));
  }
  return all;
}

std::array<Expression, 3> Reading::grid(const JsonNode& node, std::string_view path) {
  std::array<Expression, 3> grid = {Expression(1), Expression(1), Expression(1)};
  if (node.kind != Kind::array) {
    grid[0] = expression(node, path);
    return grid;
  }
  auto all = expressions(node, path, 3);
  std::move(all.begin(), all.end(), grid.begin());
  return grid;
}

std::array<std::int64_t, 3> Reading::extents(const JsonNode& node, std::string_view path,
                                             std::int64_t most) {
  std::array<std::int64_t, 3> extents = {1, 1, 1};
  if (node.kind != Kind::array) {
    extents[0] = integer(node, path, 1, most);
    return extents;
  }
  if (node.elements.size() > 3) refuse(node, path, "at most three numbers were expected");
  for (std::size_t i = 0; i < std::min<std::size_t>(3, node.elements.size()); ++i) {
    extents[i] = integer(node.elements[i], in(path, i), 1, most);
  }
  return extents;
}

Element Reading::element(const JsonNode& node, std::string_view path) {
  const std::string name = text(node, path);
  if (const auto found = element_named(name)) return *found;
  std::string names;
  for (const ElementFacts& one : kElements) {
    names += names.empty() ? "" : ", ";
    names += one.name;
  }
  if (status_.ok()) {
    refuse(node, path, fmt::format("{} is no dtype; known: {}", in_quotes(name), names));
  }
  return Element::f32;
}

HostFunction Reading::function(const JsonNode& node, std::string_view path) {
  HostFunction function;
  function.place = node.place;
  if (!object(node, path, {"function", "source"})) return function;
  if (const JsonNode* name = required(node, path, "function")) {
    function.name = identifier(*name, in(path, "function"));
  }
  if (const JsonNode* source = node.field("source")) {
    function.source = text(*source, in(path, "source"));
  }
  return function;
}

}  // namespace attune::wrap
