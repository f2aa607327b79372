// The chain rule through the steps of docs/architecture.md, "What attention means here", last step
// first. With L the loss, dX stands for dL/dX.
#include "oracle/backward.h"

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "oracle/arithmetic.h"
#include "oracle/forward.h"
#include "oracle/layout.h"
#include "oracle/read.h"

namespace attune::oracle {
namespace {

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

template <typename Real>
std::vector<Real> zeros(const std::vector<std::int64_t>& shape) {
  return std::vector<Real>(at(element_count(shape)), Real{0});
}

}  // namespace

template <typename Arithmetic>
Gradients<typename Arithmetic::Real> zero_gradients(const Layout& layout) {
  using Real = typename Arithmetic::Real;
  const Problem& p = *layout.problem;
  const Place q = layout.query_extents();
  const Place k = layout.key_extents();
  Gradients<Real> out;
  out.q = zeros<Real>({q.outer, q.inner, p.hq, p.d});
  out.k = zeros<Real>({k.outer, k.inner, p.hkv, p.d});
  out.v = zeros<Real>({k.outer, k.inner, p.hkv, p.dv});
  if (p.bias.kind == BiasKind::additive && p.bias.grad) {
    out.bias = zeros<Real>(layout.bias_shape());
  }
  if (p.sink && p.sink_grad) out.sink = zeros<Real>({p.hq});
  if (p.alibi != PerHead::none && p.alibi_grad) {
    out.alibi_slopes = zeros<Real>({p.alibi == PerHead::batch_head ? p.b : 1, p.hq});
  }
  return out;
}

template <typename Arithmetic>
void backward_row(const Layout& layout, const KeysValues<typename Arithmetic::Real>& keys_values,
                  Row<typename Arithmetic::Real>& row,
                  Gradients<typename Arithmetic::Real>& gradients) {
  using Real = typename Arithmetic::Real;
  const auto round = [](Real x) { return Arithmetic::round(x); };
  const Problem& problem = *layout.problem;
  const Arguments& arguments = *layout.arguments;
  // "A row with nothing to attend to gives ... zero gradients."
  if (row.lse == -std::numeric_limits<Real>::infinity()) return;

  const Place query = layout.query(row.b, row.i);
  std::vector<Real> grad_o(at(problem.dv));
  read_row(arguments.grad_o, offset_of(arguments.grad_o, {query.outer, query.inner, row.h, 0}),
           arguments.grad_o.strides[3], problem.dv, grad_o.data());
  Real grad_lse = 0;
  if (problem.lse_grad) {
    const Index index = layout.lse_index(row.b, row.h, row.i);
    grad_lse = static_cast<Real>(read(arguments.grad_lse, index));
  }

  // delta_i = sum over x of dO_ix O_ix, which equals sum over j of P_ij Z_ij dP_ij.
  Real delta = 0;
  for (std::size_t x = 0; x < grad_o.size(); ++x) delta += grad_o[x] * row.o[x];

  // Step 5 for the sink, which has a share of the denominator but no value:
  // dSink_h = -sum over b, i of exp(sink_h - LSE_i) (delta_i - dLSE_i)
  if (!gradients.sink.empty()) gradients.sink[at(row.h)] -= row.p_sink * (delta - grad_lse);

  if (row.keys.empty()) return;
  // Step 7: dP_ij = sum over x of dO_ix v_jx
  dot_columns(grad_o, keys_values.v_transposed, keys_values.count, row.keys.front(),
              row.keys.back() + 1, row.scratch);
  const Real scale = static_cast<Real>(problem.effective_scale());
  const std::int64_t hkv = row.h / (problem.hq / problem.hkv);
  const Place q_extents = layout.query_extents();
  const Place k_extents = layout.key_extents();
  Real* grad_q = gradients.q.data() +
                 ((query.outer * q_extents.inner + query.inner) * problem.hq + row.h) * problem.d;
  Real slope_sum = 0;
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const std::int64_t j = row.keys[n];
    const Place key = layout.key(row.b, j);
    const std::int64_t kv_row = (key.outer * k_extents.inner + key.inner) * problem.hkv + hkv;

    // Step 7: dV_j += P_ij Z_ij dO_i
    const Real p_dropped = round(row.p[n] * row.z[n]);
    Real* grad_v = gradients.v.data() + kv_row * problem.dv;
    for (std::size_t x = 0; x < grad_o.size(); ++x) grad_v[x] += p_dropped * grad_o[x];

    // Steps 6 and 5: dS_ij = P_ij (Z_ij dP_ij - delta_i + dLSE_i)
    const Real grad_p = round(row.z[n] * round(row.scratch[at(j)]));
    const Real grad_s = round(row.p[n] * (grad_p - delta + grad_lse));

    // Step 3: bias and ALiBi are added to the capped score.
    if (!gradients.bias.empty()) {
      gradients.bias[layout.bias_index(row.b, row.h, row.i, j)] += grad_s;
    }
    slope_sum -= row.distance(n) * grad_s;

    // Step 2: d(c tanh(s / c)) / ds = 1 - tanh(s / c)^2.  Step 1: the scale.
    const Real grad_raw = round(scale * round(grad_s * row.cap_slope[n]));
    const Real* k = keys_values.k.data() + j * problem.d;
    Real* grad_k = gradients.k.data() + kv_row * problem.d;
    for (std::int64_t x = 0; x < problem.d; ++x) grad_q[x] += grad_raw * k[x];
    for (std::int64_t x = 0; x < problem.d; ++x) grad_k[x] += grad_raw * row.q[at(x)];
  }
  if (!gradients.alibi_slopes.empty()) {
    const std::int64_t b = problem.alibi == PerHead::batch_head ? row.b : 0;
    gradients.alibi_slopes[at(b * problem.hq + row.h)] += slope_sum;
  }
}

#define ATTUNE_INSTANTIATE(A)                                                             \
  template Gradients<A::Real> zero_gradients<A>(const Layout&);                           \
  template void backward_row<A>(const Layout&, const KeysValues<A::Real>&, Row<A::Real>&, \
                                Gradients<A::Real>&);
ATTUNE_INSTANTIATE(Exact)
ATTUNE_INSTANTIATE(Plain<DType::f32>)
ATTUNE_INSTANTIATE(Plain<DType::f16>)
ATTUNE_INSTANTIATE(Plain<DType::bf16>)
ATTUNE_INSTANTIATE(Plain<DType::f8e4m3>)  // never run
#undef ATTUNE_INSTANTIATE

}  // namespace attune::oracle
