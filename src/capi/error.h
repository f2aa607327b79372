// The last error of each thread, and the fence that keeps exceptions inside.
#pragma once

#include <attune/attune.h>

#include <attune/status.hpp>
#include <exception>
#include <new>

namespace attune::capi {

// Remembers a failure for attune_last_error() and gives its code. Never throws.
attune_status report(const Status& status) noexcept;
attune_status report(Code code, const char* message) noexcept;

// body() is a Status; whatever happens in it comes out as a code.
template <typename Body>
attune_status fenced(const Body& body) noexcept {
  try {
    return report(body());
  } catch (const std::bad_alloc&) {
    return report(Code::out_of_memory, "there is not enough memory");
  } catch (const std::exception& error) {
    return report(Code::internal, error.what());
  } catch (...) {
    return report(Code::internal, "an exception of unknown type");
  }
}

}  // namespace attune::capi
