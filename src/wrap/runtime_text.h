// The text that every generated program begins with: the headers of src/wrap/runtime/ and the plain data
// that they share with the library, as they are compiled there.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attune::wrap {

struct RuntimeHeader {
  std::string_view path;  // "wrap/runtime/load.h"
  std::string_view text;
};

// All that are embedded in this program.
[[nodiscard]] std::span<const RuntimeHeader> runtime_headers();

struct RuntimeText {
  std::vector<std::string>
      includes;  // of the standard library and the system: "<atomic>", in order
  std::string text;
};

// These headers and those of ours that they include, each once, without guards and includes. `keep_out`
// are taken as there already. Precondition: all are among runtime_headers().
[[nodiscard]] RuntimeText runtime_text(std::span<const std::string_view> paths,
                                       std::span<const std::string_view> keep_out);

[[nodiscard]] std::string_view runtime_header(std::string_view path);

}  // namespace attune::wrap
