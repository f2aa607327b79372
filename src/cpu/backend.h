// The CPU backend: a chosen kernel and a Problem become tiles, tasks and a workspace, and run.
#pragma once

#include <attune/arguments.hpp>
#include <attune/executor.hpp>
#include <attune/problem.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "spec/kernel_spec.h"

namespace attune::cpu {

// Queries (of all heads that share keys) and keys that a micro-kernel works on at a time.
struct Tile {
  std::int64_t queries = 0, keys = 0;
};

class Execution {
 public:
  virtual ~Execution() = default;
  [[nodiscard]] virtual std::size_t workspace_bytes() const = 0;
  [[nodiscard]] virtual Tile tile() const = 0;
  // "keys a block: 192 ..." one fact a line, for explain().
  [[nodiscard]] virtual std::string describe() const = 0;
  // Precondition: check(problem, arguments) passed; workspace is 64-byte aligned and large enough.
  virtual void run(const Arguments& arguments, std::byte* workspace,
                   const Executor& executor) const = 0;
};

// " (4 query heads share keys)", or nothing: a clause of describe().
[[nodiscard]] std::string grouped(std::int64_t heads);

// Precondition: the spec's instruction set is available and serves the Problem.
[[nodiscard]] std::unique_ptr<Execution> prepare_forward(const Problem& problem,
                                                         const KernelSpec& spec, int threads);
[[nodiscard]] std::unique_ptr<Execution> prepare_backward(const Problem& problem,
                                                          const KernelSpec& spec, int threads);

}  // namespace attune::cpu
