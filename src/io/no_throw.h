// The fence between the exceptions of the standard library and the API, which throws none.
#pragma once

#include <attune/status.hpp>
#include <exception>
#include <new>
#include <stdexcept>

namespace attune {

// f(), which returns a Status or an Expected; what it throws comes back as a Status.
template <typename F>
[[nodiscard]] auto no_throw(F&& f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "there is not enough memory");
  } catch (const std::length_error&) {  // a container asked for more than any machine has
    return Status(Code::out_of_memory, "there is not enough memory");
  } catch (const std::exception& error) {
    return Status(Code::internal, error.what());
  }
}

}  // namespace attune
