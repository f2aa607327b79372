// How much float32 arithmetic may lose on the way to each result, to first order: for every element
// the size of the terms that it is summed from, each with the relative error of its own factors.
// In units of float32's rounding; the tolerance rule's floor comes from it.
#pragma once

#include <attune/oracle.hpp>
#include <cstdint>
#include <vector>

#include "oracle/forward.h"
#include "oracle/layout.h"

namespace attune::oracle {

// |k| and |v| of one (sequence, KV head), and their squares.
struct Magnitudes {
  std::vector<float> k_transposed, v_transposed;  // [D, count] and, for backward only, [Dv, count]
  std::vector<float> k_squares, v_squares;        // [count, D] and [count, Dv]
};

[[nodiscard]] Magnitudes magnitudes(const Layout& layout, const KeysValues<double>& keys_values);

class TermSums {
 public:
  explicit TermSums(const Layout& layout);

  // `row` is what forward_row() and, for backward, backward_row() made of it.
  void add_row(const KeysValues<double>& keys_values, const Magnitudes& magnitudes,
               const Row<double>& row);
  [[nodiscard]] Terms finished() const;

 private:
  void add_forward(const KeysValues<double>& keys_values, const Magnitudes& magnitudes,
                   const Row<double>& row);
  void add_backward(const KeysValues<double>& keys_values, const Magnitudes& magnitudes,
                    const Row<double>& row);

  const Layout* layout_;
  Terms rows_;  // o, lse and grad_q, of which every element belongs to one row
  // The others grow row by row.
  std::vector<float> k_, v_;  // sums of squares
  struct Long {               // of elements that are long sums
    std::vector<double> plain;
    std::vector<double> saved;  // squares: what the rounding of the saved o does
    void resize(std::int64_t count);
    [[nodiscard]] Terms::Sum finished() const;
  };
  Long bias_, sink_, alibi_slopes_;

  // Of the present row.
  std::vector<float> q_magnitudes_, grad_o_magnitudes_, dots_;
  std::vector<float> element_squares_, q_squares_, grad_o_squares_;
  std::vector<double> grad_o_, p_times_k_;
  std::vector<double> score_errors_;  // of each of row.keys: bound on the score's error
};

}  // namespace attune::oracle
