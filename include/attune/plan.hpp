// Plan: everything decided for one Problem. run() only computes.
#pragma once

#include <attune/export.h>

#include <attune/arguments.hpp>
#include <attune/executor.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

struct PlanOptions {
  int threads = 0;          // 0: every core this process may use
  std::string kernel = {};  // an id from `attune list`: use this kernel or say why it can't be
  Executor executor = {};   // default: the library's own pool
  // device=cuda: the GPU's number; -1 is that of the thread's current context, else 0. The plan
  // belongs to it.
  int device_index = -1;
  // explain() alone: as if this machine had a GPU of this architecture, e.g. "sm_86".
  std::string arch = {};
};

class ATTUNE_API Plan {
 public:
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan();

  [[nodiscard]] const Problem& problem() const;   // normalised
  [[nodiscard]] std::string_view kernel() const;  // the chosen kernel's id
  [[nodiscard]] int threads() const;              // 0 on a GPU
  [[nodiscard]] int device_index() const;         // of the GPU; -1 on the CPU
  // Bytes of scratch memory that run() needs; grows at most linearly with Sq and Sk. On a GPU
  // mostly 0 forward; backward, parts of a bias's gradient that is summed over are as large as it is.
  [[nodiscard]] std::size_t workspace_bytes() const;
  // Every candidate in order, chosen or refused and why; tiles, tasks, threads, workspace.
  [[nodiscard]] std::string explain() const;

  // device=cuda: compiles the kernel if need be and loads it into the current context (or the
  // device's primary one), so that no run() has to. Else nothing.
  [[nodiscard]] Status prepare() const;

  // Computes. Thread-safe for distinct workspaces. A refused call writes nothing.
  // workspace: at least workspace_bytes(), any alignment. Without one, run() allocates it.
  // device=cuda: queues the work on arguments.stream and returns; workspace is device memory, and
  // an allocated one comes from the stream's memory pool. May be captured in a CUDA graph.
  [[nodiscard]] Status run(const Arguments& arguments, std::span<std::byte> workspace) const;
  [[nodiscard]] Status run(const Arguments& arguments) const;

  struct Impl;

 private:
  explicit Plan(std::unique_ptr<Impl> impl);
  friend ATTUNE_API Expected<Plan> make_plan(const Problem& problem, const PlanOptions& options);
  std::unique_ptr<Impl> impl_;
};

[[nodiscard]] ATTUNE_API Expected<Plan> make_plan(const Problem& problem,
                                                  const PlanOptions& options = {});

// What explain() says, as data.
struct Explanation {
  struct Candidate {
    std::string kernel;                // its id
    std::vector<std::string> reasons;  // why not; empty when it serves the Problem
    std::string note;                  // why it stands where it stands, if that needs saying
  };
  Problem problem;                    // normalised
  std::vector<Candidate> candidates;  // in order of preference
  std::string kernel;                 // the chosen one's id; empty when none serves
  std::string device;                 // the GPU's name; empty on the CPU and without a GPU
  // A tile of the chosen kernel: query rows and keys that are computed at a time.
  std::int64_t tile_queries = 0, tile_keys = 0;
  std::string text;
};
[[nodiscard]] ATTUNE_API Expected<Explanation> explain_candidates(const Problem& problem,
                                                                  const PlanOptions& options = {});

// The same as text. The candidates for a Problem even when none of them serves it; only an invalid
// Problem fails.
[[nodiscard]] ATTUNE_API Expected<std::string> explain(const Problem& problem,
                                                       const PlanOptions& options = {});

}  // namespace attune
