// An attention step: the Problem that it stands for at any sizes, and the rows of the kernel table that
// serve it on a GPU.
#pragma once

#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "registry/registry.h"
#include "spec/kernel_spec.h"
#include "wrap/program.h"

namespace attune::wrap {

// The tensors' sizes at given sizes of the program.
[[nodiscard]] Expected<Problem> problem_of(const Program& program, const AttentionStep& step,
                                           const ValueOf& size, Device device);

// Words of the Problem's text that no tensor says, with what the tensors say of features ("lse", "sink",
// "packed=q").
[[nodiscard]] Expected<std::string> words_of(const Program& program, const AttentionStep& step);

// The Problem at the least and the largest sizes is valid, and its tensors are of the right dtypes and
// ranks. Errors name what is wrong, without the place.
[[nodiscard]] Status check_attention(const Program& program, const AttentionStep& step,
                                     Device device);

// A row that may run, compiled for some architectures.
struct AttentionRow {
  KernelSpec spec;
  std::vector<std::shared_ptr<const Image>> images;  // by architecture
  std::size_t variant = 0;                           // of the blueprint
};

struct AttentionChoice {
  Problem problem;                 // at typical sizes
  std::vector<AttentionRow> rows;  // in order of preference
  Expression workspace_bytes;      // 0: none
};

// Rows that the architectures need, compiled (docs/cubin.md). Forward alone.
[[nodiscard]] Expected<AttentionChoice> choose_rows(const Program& program,
                                                    const AttentionStep& step,
                                                    const std::vector<int>& archs);

}  // namespace attune::wrap
