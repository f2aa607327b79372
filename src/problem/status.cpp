#include <attune/status.hpp>

namespace attune {

const char* to_string(Code code) {
  switch (code) {
    case Code::ok:
      return "ok";
    case Code::invalid_argument:
      return "invalid argument";
    case Code::unsupported:
      return "unsupported";
    case Code::out_of_memory:
      return "out of memory";
    case Code::io_error:
      return "input/output error";
    case Code::internal:
      return "internal error";
    case Code::device_error:
      return "device error";
  }
  return "unknown code";
}

}  // namespace attune
