// One kernel for one target, from the disk cache or from the compiler: what the registry does at run
// time and `attune compile` ahead of time is the same.
#pragma once

#include <attune/status.hpp>
#include <functional>
#include <vector>

#include "cubin/disk_cache.h"
#include "cubin/target.h"
#include "cubin/toolchain.h"
#include "spec/kernel_spec.h"

namespace attune {

using CompileFunction =
    std::function<Expected<Cubin>(const KernelSpec&, const Target&, const Toolchain&)>;

// compile() of the spec's own unit.
[[nodiscard]] Expected<Cubin> compile_spec(const KernelSpec& spec, const Target& target,
                                           const Toolchain& toolchain);

struct Obtained {
  Cubin cubin;
  bool compiled = false;  // here and now
};

// Without a cache (null) it is compiled. With one, at most one process of the machine compiles it while
// the others wait. Precondition: the spec is not of family cpu.
[[nodiscard]] Expected<Obtained> obtain(const KernelSpec& spec, const Target& target,
                                        const Toolchain& toolchain, DiskCache* cache,
                                        const CompileFunction& compile);

// One kernel for several targets, in their order; what the cache lacks is compiled together. Two
// processes that do so at once may both compile a kernel, and keep one.
[[nodiscard]] std::vector<Expected<Obtained>> obtain_for(const KernelSpec& spec,
                                                         const std::vector<Target>& targets,
                                                         const Toolchain& toolchain,
                                                         DiskCache* cache);

}  // namespace attune
