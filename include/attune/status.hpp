// Status and Expected: how every public function reports a refusal. No exception crosses the API.
#pragma once

#include <attune/export.h>

#include <optional>
#include <string>
#include <utility>

namespace attune {

enum class Code {
  ok = 0,
  invalid_argument = 1,  // the caller's values contradict each other or the contract
  unsupported = 2,       // meaningful, but no kernel here computes it
  out_of_memory = 3,
  io_error = 4,      // a file is missing, truncated, or lies about itself
  internal = 5,      // a bug in Attune
  device_error = 6,  // the GPU or its driver failed; the text has its words
};

[[nodiscard]] ATTUNE_API const char* to_string(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  [[nodiscard]] bool ok() const { return code_ == Code::ok; }
  [[nodiscard]] Code code() const { return code_; }
  // What went wrong, with the value, the limit and the id; empty when ok.
  [[nodiscard]] const std::string& message() const { return message_; }

 private:
  Code code_ = Code::ok;
  std::string message_;
};

// A T, or the reason why there is none. Check ok() before value().
template <typename T>
class [[nodiscard]] Expected {
 public:
  Expected(T value) : value_(std::move(value)) {}          // NOLINT(google-explicit-constructor)
  Expected(Status status) : status_(std::move(status)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  [[nodiscard]] const Status& status() const { return status_; }

  [[nodiscard]] T& value() & { return *value_; }
  [[nodiscard]] const T& value() const& { return *value_; }
  [[nodiscard]] T&& value() && { return *std::move(value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace attune
