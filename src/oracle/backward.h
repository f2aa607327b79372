// The gradients of one row, added to those of the rows before it.
#pragma once

#include <vector>

#include "oracle/forward.h"
#include "oracle/layout.h"

namespace attune::oracle {

// Sums that grow row by row, each row-major in its tensor's logical shape; empty when not asked.
template <typename Real>
struct Gradients {
  std::vector<Real> q, k, v, bias, sink, alibi_slopes;
};

// All zero, sized as the Problem asks.
template <typename Arithmetic>
[[nodiscard]] Gradients<typename Arithmetic::Real> zero_gradients(const Layout& layout);

// `row` is what forward_row() made of it. Not const only for its scratch.
template <typename Arithmetic>
void backward_row(const Layout& layout, const KeysValues<typename Arithmetic::Real>& keys_values,
                  Row<typename Arithmetic::Real>& row,
                  Gradients<typename Arithmetic::Real>& gradients);

}  // namespace attune::oracle
