// Many kernels over the cores. NVRTC compiles one kernel at a time in a process, so each worker is a
// process; it also keeps a crash of the compiler from taking the others with it.
#pragma once

#include <attune/status.hpp>
#include <functional>
#include <vector>

#include "cubin/disk_cache.h"
#include "cubin/target.h"
#include "cubin/toolchain.h"
#include "spec/kernel_spec.h"

namespace attune::cli {

// One row for all its architectures: they share the compiler's front end.
struct CompileJob {
  KernelSpec spec;
  std::vector<Target> targets;
};

struct CompileResult {
  Cubin cubin;            // when status is ok
  bool compiled = false;  // else it was in the cache
  Status status;
};

using CompileDone = std::function<void(std::size_t job, std::vector<CompileResult> results)>;

// Forks `workers` processes, and calls `done` here with each job's number and results (one a target, in
// order), in the order in which the jobs end. Precondition: this process has no other thread. `cache` may be null.
[[nodiscard]] Status compile_jobs(const std::vector<CompileJob>& jobs, const Toolchain& toolchain,
                                  DiskCache* cache, int workers, const CompileDone& done);

}  // namespace attune::cli
