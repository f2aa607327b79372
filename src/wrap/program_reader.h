// JSON -> Program, in three steps, so that text can be read without its files.
#pragma once

#include <attune/status.hpp>
#include <filesystem>
#include <string_view>

#include "wrap/program.h"

namespace attune::wrap {

// The text alone: fields, types, names, expressions. Errors are "12: steps[3].grid: ...", the line first.
[[nodiscard]] Expected<Program> parse_program(std::string_view text);

// Reads the kernels' files, and dtypes and shapes of constants. Paths that are not absolute lie below
// `folder`. Errors begin with the line of the program.
[[nodiscard]] Status load_files(Program& program, const std::filesystem::path& folder);

// Everything that can be known before a call: names and sizes, shapes that fit 63 bits, arguments and
// their types, files that say what the signatures say, temporaries that are written before they are read.
[[nodiscard]] Status check_program(const Program& program);

// All three; errors begin with the path and the line: "block.json:12: ...".
[[nodiscard]] Expected<Program> read_program(const std::filesystem::path& path);

}  // namespace attune::wrap
