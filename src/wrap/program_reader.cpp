#include "wrap/program_reader.h"

#include <fmt/format.h>

#include <bit>
#include <string>

#include "io/file.h"
#include "io/no_throw.h"
#include "io/tensor.h"
#include "wrap/layout_reader.h"
#include "wrap/reading.h"
#include "wrap/step_reader.h"

namespace attune::wrap {

namespace {

using Kind = JsonNode::Kind;

constexpr std::int64_t kMostSize = std::int64_t{1} << 48;

class ProgramReader {
 public:
  explicit ProgramReader(const JsonNode& root) : root_(root) {}

  Expected<Program> read() {
    if (reading_.object(root_, "",
                        {"attune_program", "name", "sizes", "inputs", "outputs", "constants",
                         "temporaries", "kernels", "steps"})) {
      if (const JsonNode* format = reading_.required(root_, "", "attune_program")) {
        (void)reading_.integer(*format, "attune_program", 1, 1);
      }
      if (const JsonNode* name = reading_.required(root_, "", "name")) {
        program_.name = reading_.identifier(*name, "name");
      }
      each("sizes", &ProgramReader::size);
      // Scalars are sizes too, and shapes of inputs may have them.
      role_ = TensorRole::input;
      each("inputs", &ProgramReader::scalar);
      each("inputs", &ProgramReader::tensor);
      role_ = TensorRole::output;
      each("outputs", &ProgramReader::tensor);
      role_ = TensorRole::constant;
      each("constants", &ProgramReader::constant);
      role_ = TensorRole::temporary;
      each("temporaries", &ProgramReader::tensor);
      each("kernels", &ProgramReader::kernel);
      if (const JsonNode* steps = reading_.required(root_, "", "steps")) {
        if (reading_.status().ok()) read_steps(reading_, *steps, program_);
      }
    }
    if (!reading_.status().ok()) return reading_.status();
    return std::move(program_);
  }

 private:
  void each(std::string_view section,
            void (ProgramReader::*reader)(const JsonField&, const std::string&)) {
    const JsonNode* node = root_.field(section);
    if (node == nullptr || !reading_.object(*node, section)) return;
    for (const JsonField& field : node->fields) {
      if (!reading_.status().ok()) return;
      (this->*reader)(field, in(section, field.name));
    }
  }

  Range range(const JsonNode& node, const std::string& path, const Range& standard) {
    Range range;
    range.min = reading_.integer_or(node, path, "min", 0, kMostSize, standard.min);
    range.max = reading_.integer_or(node, path, "max", 0, kMostSize, standard.max);
    range.multiple_of = reading_.integer_or(node, path, "multiple_of", 1, kMostSize, 1);
    if (range.min > range.max) {
      reading_.refuse(
          node, path,
          fmt::format("its least value {} is above its largest, {}", range.min, range.max));
    }
    return range;
  }

  void size(const JsonField& field, const std::string& path) {
    reading_.check_identifier(field.value, "sizes", field.name);
    if (!reading_.object(field.value, path, {"min", "max", "multiple_of"})) return;
    program_.sizes.push_back(
        {field.name, range(field.value, path, {0, kDefaultMost, 1}), field.place});
  }

  // An input without a shape.
  void scalar(const JsonField& field, const std::string& path) {
    if (!reading_.object(field.value, path) || field.value.field("shape") != nullptr) return;
    reading_.check_identifier(field.value, "inputs", field.name);
    if (!reading_.object(field.value, path, {"dtype", "min", "max", "multiple_of"})) return;
    const JsonNode* dtype = reading_.required(field.value, path, "dtype");
    if (dtype == nullptr) return;
    ScalarDeclaration scalar{field.name, reading_.element(*dtype, in(path, "dtype")), field.place};
    if (facts(scalar.element).c_type.empty()) {
      reading_.refuse(*dtype, in(path, "dtype"),
                      fmt::format("no scalar of C is a {}", facts(scalar.element).name));
    }
    const bool real = scalar.element == Element::f32 || scalar.element == Element::f64;
    if (!real) {
      const std::int64_t most = bytes_of(scalar.element) == 1   ? 127
                                : bytes_of(scalar.element) == 2 ? INT16_MAX
                                                                : kDefaultMost;
      program_.sizes.push_back({field.name, range(field.value, path, {0, most, 1}), field.place});
    }
    program_.scalars.push_back(std::move(scalar));
  }

  void check_new(const JsonField& field, const std::string& path) {
    if (program_.tensor_named(field.name)) {
      reading_.refuse(field.value, path, "there is a tensor of this name already");
    }
  }

  void tensor(const JsonField& field, const std::string& path) {
    if (!reading_.object(field.value, path)) return;
    if (role_ == TensorRole::input && field.value.field("shape") == nullptr) return;
    check_new(field, path);
    TensorDeclaration tensor;
    tensor.name = field.name;
    tensor.role = role_;
    tensor.place = field.place;
    const bool outside = role_ != TensorRole::temporary;
    if (outside) {
      reading_.check_identifier(field.value, path, field.name);
      if (!reading_.object(field.value, path, {"dtype", "shape", "strides", "align"})) return;
    } else if (!reading_.object(field.value, path, {"dtype", "shape"})) {
      return;
    } else {
      check_text(field, path);
    }
    const JsonNode* dtype = reading_.required(field.value, path, "dtype");
    const JsonNode* shape = reading_.required(field.value, path, "shape");
    if (dtype == nullptr || shape == nullptr) return;
    tensor.element = reading_.element(*dtype, in(path, "dtype"));
    read_layout(reading_, field.value, path, *shape, tensor);
    if (const JsonNode* align = field.value.field("align")) {
      tensor.alignment = static_cast<int>(reading_.integer(*align, in(path, "align"), 1, 256));
      if (!std::has_single_bit(static_cast<unsigned>(tensor.alignment))) {
        reading_.refuse(*align, in(path, "align"),
                        fmt::format("{} is no power of two", tensor.alignment));
      }
    }
    if (role_ == TensorRole::temporary) tensor.alignment = kStorageAlignment;
    program_.tensors.push_back(std::move(tensor));
  }

  // Names end up in comments and messages of generated text.
  void check_text(const JsonField& field, const std::string& path) {
    JsonNode name;
    name.kind = Kind::text;
    name.text = field.name;
    name.place = field.place;
    (void)reading_.text(name, path);
  }

  void constant(const JsonField& field, const std::string& path) {
    check_new(field, path);
    check_text(field, path);
    if (!reading_.object(field.value, path, {"file", "tensor"})) return;
    TensorDeclaration tensor;
    tensor.name = field.name;
    tensor.tensor = field.name;
    tensor.role = role_;
    tensor.place = field.place;
    tensor.alignment = kStorageAlignment;
    if (const JsonNode* file = reading_.required(field.value, path, "file")) {
      tensor.file = reading_.text(*file, in(path, "file"));
    }
    if (const JsonNode* name = field.value.field("tensor")) {
      tensor.tensor = reading_.text(*name, in(path, "tensor"));
    }
    program_.tensors.push_back(std::move(tensor));
  }

  void kernel(const JsonField& field, const std::string&) {
    program_.kernels.push_back(read_kernel(reading_, field));
  }

  const JsonNode& root_;
  Reading reading_;
  Program program_;
  TensorRole role_ = TensorRole::input;
};

}  // namespace

Expected<Program> parse_program(std::string_view text) {
  return no_throw([&]() -> Expected<Program> {
    const auto root = parse_json(text);
    if (!root.ok()) return root.status();
    return ProgramReader(*root).read();
  });
}

Expected<Program> read_program(const std::filesystem::path& path) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;
  const auto bytes = read_file(path, kMostBytes);
  if (!bytes.ok()) return bytes.status();
  const auto in_program = [&](const Status& status) {
    return Status(status.code(), fmt::format("{}:{}", path.string(), status.message()));
  };
  auto program = parse_program({reinterpret_cast<const char*>(bytes->data()), bytes->size()});
  if (!program.ok()) return in_program(program.status());
  if (const Status status = load_files(*program, path.parent_path()); !status.ok()) {
    return in_program(status);
  }
  if (const Status status = check_program(*program); !status.ok()) return in_program(status);
  return program;
}

}  // namespace attune::wrap
