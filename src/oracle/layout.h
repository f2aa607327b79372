// Where each sequence's queries, keys and LSE lie: dense, packed or paged.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "oracle/read.h"

namespace attune::oracle {

// The first two indices of a row of q, o or of k, v: (b, i), (0, packed row) or (page, slot).
struct Place {
  std::int64_t outer = 0, inner = 0;
};

struct Layout {
  const Problem* problem = nullptr;
  const Arguments* arguments = nullptr;
  std::vector<std::int64_t> cu_seqlens_q, cu_seqlens_k;  // B + 1 each; empty unless packed
  std::vector<std::int64_t> key_lengths;                 // B; empty when the Problem has none
  std::vector<std::int64_t> page_table;  // B * pages_per_sequence; empty unless paged
  std::int64_t pages_per_sequence = 0;

  // Sq and Sk of sequence b, its own.
  [[nodiscard]] std::int64_t queries(std::int64_t b) const;
  [[nodiscard]] std::int64_t keys(std::int64_t b) const;

  [[nodiscard]] Place query(std::int64_t b, std::int64_t i) const;
  [[nodiscard]] Place key(std::int64_t b, std::int64_t j) const;

  // Extents of the first two dimensions of q and o, and of k and v.
  [[nodiscard]] Place query_extents() const;
  [[nodiscard]] Place key_extents() const;

  // The shape of the LSE and of its gradient, and the index of one row in it.
  [[nodiscard]] std::vector<std::int64_t> lse_shape() const;
  [[nodiscard]] Index lse_index(std::int64_t b, std::int64_t h, std::int64_t i) const;

  // The bias's own shape, in which broadcast extents are 1, and where bias[b, h, i, j] stands in
  // it, row-major.
  [[nodiscard]] std::vector<std::int64_t> bias_shape() const;
  [[nodiscard]] std::size_t bias_index(std::int64_t b, std::int64_t h, std::int64_t i,
                                       std::int64_t j) const;
};

// Reads the integer tensors and looks at every input's shape, so that nothing is read outside of
// it. Arguments that passed attune::check() always pass; a refusal names the tensor.
[[nodiscard]] Expected<Layout> make_layout(const Problem& problem, const Arguments& arguments);

// Product of extents. Throws std::bad_alloc when it exceeds the address space.
[[nodiscard]] std::int64_t element_count(const std::vector<std::int64_t>& shape);

}  // namespace attune::oracle
