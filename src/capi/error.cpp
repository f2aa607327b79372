#include "capi/error.h"

#include <attune/attune.h>

#include <attune/status.hpp>
#include <string>

namespace attune::capi {
namespace {

static_assert(ATTUNE_INVALID_ARGUMENT == static_cast<int>(Code::invalid_argument));
static_assert(ATTUNE_UNSUPPORTED == static_cast<int>(Code::unsupported));
static_assert(ATTUNE_OUT_OF_MEMORY == static_cast<int>(Code::out_of_memory));
static_assert(ATTUNE_IO_ERROR == static_cast<int>(Code::io_error));
static_assert(ATTUNE_INTERNAL == static_cast<int>(Code::internal));
static_assert(ATTUNE_DEVICE_ERROR == static_cast<int>(Code::device_error));

struct LastError {
  std::string text;
  const char* message = "";  // into `text`, or a literal when there was no memory for it
};

LastError& last_error() {
  thread_local LastError error;
  return error;
}

}  // namespace

attune_status report(Code code, const char* message) noexcept {
  if (code == Code::ok) return ATTUNE_OK;
  LastError& error = last_error();
  try {
    error.text = message;
    error.message = error.text.c_str();
  } catch (...) {
    error.message = "there is not enough memory, not even for the reason of a failure";
  }
  return static_cast<attune_status>(code);
}

attune_status report(const Status& status) noexcept {
  return report(status.code(), status.message().c_str());
}

}  // namespace attune::capi

extern "C" const char* attune_last_error(void) { return attune::capi::last_error().message; }
