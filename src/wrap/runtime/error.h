// The text of the latest failure of each thread.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "wrap/runtime/abi.h"

namespace attune::wrapped {

struct ErrorText {
  char text[2048];
};

inline ErrorText& last_error() {
  thread_local ErrorText error{};
  return error;
}

// Keeps the text and returns the code.
__attribute__((format(printf, 2, 3))) inline int fail(int code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error().text, sizeof(ErrorText::text), format, arguments);
  va_end(arguments);
  return code;
}

// Puts "<where>: " before the text.
inline int fail_in(const char* where, int code) {
  ErrorText& error = last_error();
  const ErrorText old = error;
  const int written = std::snprintf(error.text, sizeof(error.text), "%s: ", where);
  const std::size_t used = written < 0 ? 0 : static_cast<std::size_t>(written);
  if (used < sizeof(error.text)) {
    const std::size_t room = sizeof(error.text) - used - 1;
    const std::size_t kept = strnlen(old.text, room);
    std::memcpy(error.text + used, old.text, kept);
    error.text[used + kept] = 0;
  }
  return code;
}

}  // namespace attune::wrapped
