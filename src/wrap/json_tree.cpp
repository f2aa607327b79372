#include "wrap/json_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/no_throw.h"
#include "io/tensor.h"

namespace attune::wrap {

namespace {

// Where the lexer is: the line of the character that it read last. It has read a token and no more when it
// tells of it, but for numbers, which end where something else begins.
struct Position {
  int line = 1;
  bool line_ended = false;

  void read(char c) {
    if (std::exchange(line_ended, c == '\n')) ++line;
  }
};

// Reads a text and tells where it is.
class Reading {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Reading(const char* at, Position* position) : at_(at), position_(position) {}
  reference operator*() const { return *at_; }
  Reading& operator++() {
    position_->read(*at_++);
    return *this;
  }
  Reading operator++(int) {
    const Reading before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const Reading& a, const Reading& b) { return a.at_ == b.at_; }
  friend bool operator!=(const Reading& a, const Reading& b) { return !(a == b); }

 private:
  const char* at_;
  Position* position_;
};

class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(const Position& position) : position_(position) {}

  bool null() override { return add({}); }
  bool boolean(bool value) override {
    JsonNode node;
    node.kind = JsonNode::Kind::boolean;
    node.boolean = value;
    return add(std::move(node));
  }
  bool number_integer(std::int64_t value) override {
    JsonNode node;
    node.kind = JsonNode::Kind::integer;
    node.integer = value;
    node.real = static_cast<double>(value);
    return add(std::move(node));
  }
  bool number_unsigned(std::uint64_t value) override {
    if (value > static_cast<std::uint64_t>(INT64_MAX)) {
      return refuse(fmt::format("{} is larger than 2^63 - 1", value));
    }
    return number_integer(static_cast<std::int64_t>(value));
  }
  bool number_float(double value, const std::string&) override {
    JsonNode node;
    node.kind = JsonNode::Kind::real;
    node.real = value;
    return add(std::move(node));
  }
  bool string(std::string& value) override {
    JsonNode node;
    node.kind = JsonNode::Kind::text;
    node.text = std::move(value);
    return add(std::move(node));
  }
  bool binary(nlohmann::json::binary_t&) override { return refuse("no binary value was expected"); }
  bool start_object(std::size_t) override { return open(JsonNode::Kind::object); }
  bool start_array(std::size_t) override { return open(JsonNode::Kind::array); }
  bool key(std::string& name) override {
    JsonNode& object = *open_.back();
    if (object.fields.size() >= kMostFields) return refuse("the object has too many fields");
    if (object.field(name) != nullptr) {
      return refuse(fmt::format("the field {} is there twice", in_quotes(name)));
    }
    object.fields.push_back({std::move(name), here(), {}});
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::json::exception& error) override {
    std::string_view what = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..."
    const std::size_t colon = what.find(": ");
    if (colon != std::string_view::npos) what.remove_prefix(colon + 2);
    return refuse(fmt::format("this is no JSON: {}", what));
  }

  [[nodiscard]] Status& status() { return status_; }
  [[nodiscard]] JsonNode& root() { return root_; }

 private:
  static constexpr std::size_t kDeepest = 64;
  static constexpr std::size_t kMostFields = 10'000;

  [[nodiscard]] Place here() const { return {position_.line}; }

  bool refuse(const std::string& why) {
    if (status_.ok()) status_ = at(here(), why);
    return false;
  }

  JsonNode& place_for() {
    if (open_.empty()) return root_;
    JsonNode& parent = *open_.back();
    return parent.kind == JsonNode::Kind::array ? parent.elements.emplace_back()
                                                : parent.fields.back().value;
  }

  bool add(JsonNode node) {
    node.place = here();
    place_for() = std::move(node);
    return true;
  }

  bool open(JsonNode::Kind kind) {
    if (open_.size() >= kDeepest) return refuse(fmt::format("more than {} levels", kDeepest));
    JsonNode& node = place_for();
    node.kind = kind;
    node.place = here();
    open_.push_back(&node);  // stays where it is: its parent gets no other child meanwhile
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const Position& position_;
  JsonNode root_;
  std::vector<JsonNode*> open_;
  Status status_;
};

}  // namespace

const JsonNode* JsonNode::field(std::string_view name) const {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [&](const JsonField& field) { return field.name == name; });
  return found == fields.end() ? nullptr : &found->value;
}

std::string describe(const JsonNode& node) {
  switch (node.kind) {
    case JsonNode::Kind::null:
      return "null";
    case JsonNode::Kind::boolean:
      return node.boolean ? "true" : "false";
    case JsonNode::Kind::integer:
      return fmt::format("the number {}", node.integer);
    case JsonNode::Kind::real:
      return fmt::format("the number {}", node.real);
    case JsonNode::Kind::text:
      return fmt::format("the text {}", in_quotes(node.text));
    case JsonNode::Kind::array:
      return "an array";
    case JsonNode::Kind::object:
      return "an object";
  }
  return "?";
}

Status at(const Place& place, std::string_view message) {
  return {Code::invalid_argument, fmt::format("{}: {}", place.line, message)};
}

Expected<JsonNode> parse_json(std::string_view text) {
  return no_throw([&]() -> Expected<JsonNode> {
    Position position;
    Builder builder(position);
    const bool ok = nlohmann::json::sax_parse(
        Reading(text.data(), &position), Reading(text.data() + text.size(), &position), &builder);
    if (!builder.status().ok()) return builder.status();
    if (!ok) return at({position.line}, "this is no JSON");
    return std::move(builder.root());
  });
}

}  // namespace attune::wrap
