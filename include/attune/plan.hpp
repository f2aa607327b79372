// Plan: everything decided for one Problem. run() only computes.
#pragma once

#include <attune/export.h>

#include <attune/arguments.hpp>
#include <attune/executor.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace attune {

struct PlanOptions {
  int threads = 0;          // 0: every core this process may use
  std::string kernel = {};  // an id from `attune list`: use this kernel or say why it can't be
  Executor executor = {};   // default: the library's own pool
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
  [[nodiscard]] int threads() const;
  // Bytes of scratch memory that run() needs; grows at most linearly with Sq and Sk.
  [[nodiscard]] std::size_t workspace_bytes() const;
  // Every candidate in order, chosen or refused and why; tiles, tasks, threads, workspace.
  [[nodiscard]] std::string explain() const;

  // Computes. Thread-safe for distinct workspaces. A refused call writes nothing.
  // workspace: at least workspace_bytes(), any alignment. Without one, run() allocates it.
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

// The candidates for a Problem even when none of them serves it; only an invalid Problem fails.
[[nodiscard]] ATTUNE_API Expected<std::string> explain(const Problem& problem,
                                                       const PlanOptions& options = {});

}  // namespace attune
