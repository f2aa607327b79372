// The Problem parser on any bytes: it answers or refuses, and what it accepts prints and parses
// back to the same value.
#include <attune/problem.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

void require(bool holds, const char* what, const std::string& text) {
  if (holds) return;
  std::fprintf(stderr, "%s: %s\n", what, text.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const attune::Expected<attune::Problem> problem = attune::parse(text);
  if (!problem.ok()) {
    require(!problem.status().message().empty(), "a refusal without a reason", std::string(text));
    return 0;
  }
  const std::string printed = attune::print(*problem);
  const attune::Expected<attune::Problem> back = attune::parse(printed);
  require(back.ok(), "a printed problem is refused", printed);
  require(*back == *problem, "a printed problem reads back as another", printed);
  require(attune::hash(*back) == attune::hash(*problem), "equal problems hash apart", printed);
  return 0;
}
