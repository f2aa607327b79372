// Compiled kernels, wherever they are: in memory, in a bundle, in the disk cache, or from the compiler.
// The only mutable global state on the way from a Problem to a launch. No driver is called here.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cubin/bundle.h"
#include "cubin/disk_cache.h"
#include "cubin/target.h"
#include "cubin/toolchain.h"
#include "registry/obtain.h"
#include "spec/kernel_spec.h"

namespace attune {

enum class Origin : std::uint8_t { bundle, disk, compiler };
[[nodiscard]] std::string_view to_string(Origin origin);

// A kernel that is ready to be loaded. Its entry is kEntryName.
struct Image {
  std::string id;
  Target target;
  std::vector<std::byte> cubin;
  CubinFacts facts;
  Origin origin = Origin::compiler;
  double seconds = 0;  // that finding or compiling it took here
};

class Registry {
 public:
  struct Options {
    std::vector<Bundle> bundles = {};       // in the order in which they are looked into
    std::unique_ptr<DiskCache> cache = {};  // null: none
    bool may_compile = true;
    Compiler compiler = Compiler::nvrtc;
    // For tests: what stands in for the compiler and what counts as its version.
    std::function<Expected<Toolchain>()> toolchain = {};
    CompileFunction compile = {};
  };
  // As the environment says (docs/environment.md).
  [[nodiscard]] static Options default_options();

  explicit Registry(Options options);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // The kernel for a device of compute capability `device` = 10 * major + minor. Compiled once, even
  // when many threads ask at once. Precondition: the spec is not of family cpu.
  [[nodiscard]] Expected<std::shared_ptr<const Image>> image_for(const KernelSpec& spec,
                                                                 int device);

  [[nodiscard]] const std::vector<Bundle>& bundles() const { return options_.bundles; }
  [[nodiscard]] const DiskCache* cache() const { return options_.cache.get(); }

  // What was found so far, in order of id and device.
  [[nodiscard]] std::vector<std::shared_ptr<const Image>> images() const;

 private:
  struct Slot;
  using Key = std::pair<std::string, int>;  // id, device

  [[nodiscard]] Expected<Image> find(const KernelSpec& spec, int device);
  [[nodiscard]] Expected<Image> find_or_compile(const KernelSpec& spec, int device);
  [[nodiscard]] std::optional<Image> from_bundles(const KernelSpec& spec, int device) const;
  [[nodiscard]] std::optional<Image> from_disk(const KernelSpec& spec, int device);

  Options options_;
  mutable std::mutex mutex_;
  std::map<Key, std::shared_ptr<Slot>> slots_;
};

// For tests: what the process's registry is made of, said before its first use.
void set_process_registry(Registry::Options options);

// Of the whole process.
[[nodiscard]] Registry& process_registry();
[[nodiscard]] Expected<std::shared_ptr<const Image>> image_for(const KernelSpec& spec, int device);

}  // namespace attune
