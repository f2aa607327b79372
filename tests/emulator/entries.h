// The kernels that were compiled for the emulator. Each unit adds its own before main() begins.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace attune::emulator {

struct Entry {
  std::string_view id;    // of the row
  std::string_view name;  // attune_kernel, or of several kernels of a row the one meant
  std::size_t params_bytes;
  void (*run)(const void* params);  // as one thread
};

bool add_entry(const Entry& entry);
[[nodiscard]] std::span<const Entry> entries();
// Null where there is none.
[[nodiscard]] const Entry* find_entry(std::string_view id, std::string_view name);

namespace detail {

template <auto kFunction>
struct Caller;
template <typename Params, void (*kFunction)(Params)>
struct Caller<kFunction> {
  static constexpr std::size_t kParamsBytes = sizeof(Params);
  static void run(const void* params) { kFunction(*static_cast<const Params*>(params)); }
};

}  // namespace detail

template <auto kFunction>
bool add_kernel(std::string_view id, std::string_view name) {
  using Caller = detail::Caller<kFunction>;
  return add_entry({id, name, Caller::kParamsBytes, Caller::run});
}

}  // namespace attune::emulator
