// Cubins without a compiler, and registries that count how often they would need one.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "registry/registry.h"

namespace attune::testing {

// The first row of the portable family: it runs on sm_80 and later.
[[nodiscard]] KernelSpec first_row();
// The n-th row for sm_80 and later.
[[nodiscard]] KernelSpec nth_row(std::size_t n);

// A well-formed cubin of a kernel kEntryName, made by hand: registers, shared and local memory as
// given, `code_bytes` of text that depend on `seed`.
struct FakeKernel {
  std::uint32_t registers = 40;
  std::uint32_t shared_bytes = 0;
  std::uint32_t local_bytes = 0;
  std::uint32_t parameter_bytes = 400;
  std::uint32_t max_threads = 128;
  std::size_t code_bytes = 1024;
  unsigned seed = 0;
};
[[nodiscard]] std::vector<std::byte> fake_cubin(const FakeKernel& kernel);
// One of several kernels by name.
[[nodiscard]] std::vector<std::byte> fake_cubin_of_several(
    const std::vector<std::pair<std::string, FakeKernel>>& kernels);

// A registry whose compiler knows sm_75, 80, 86, 89 and 90, counts, and makes fake cubins.
[[nodiscard]] Registry::Options counting_options(std::atomic<int>& compiled,
                                                 const std::filesystem::path& cache = {},
                                                 std::uint64_t limit_bytes = 1 << 30);
[[nodiscard]] Toolchain fake_toolchain();

// Collects notices while it lives.
class Notices {
 public:
  Notices();
  ~Notices();
  Notices(const Notices&) = delete;
  Notices& operator=(const Notices&) = delete;
  [[nodiscard]] std::vector<std::string> texts() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

void flip_byte(const std::filesystem::path& file, std::uint64_t offset);
// Paths of the entries in a cache folder, sorted.
[[nodiscard]] std::vector<std::filesystem::path> entries_of(const std::filesystem::path& cache);
[[nodiscard]] std::filesystem::path only_entry(const std::filesystem::path& cache);

}  // namespace attune::testing
