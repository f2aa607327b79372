// Attune in C++: exact fused attention. This header brings all of it.
//
//   #include <attune/attune.hpp>
//
//   // One call: causal grouped-query attention on float32 tensors [B, S, H, D].
//   const auto f32 = attune::DType::f32;
//   const auto q = attune::TensorView::contiguous(q_data, f32, {2, 1024, 16, 128});
//   const auto k = attune::TensorView::contiguous(k_data, f32, {2, 1024, 4, 128});
//   const auto v = attune::TensorView::contiguous(v_data, f32, {2, 1024, 4, 128});
//   const auto o = attune::TensorView::contiguous(o_data, f32, {2, 1024, 16, 128});
//   const attune::Status status = attune::attention(q, k, v, o, {.mask = {.causal = true}});
//   if (!status.ok()) std::puts(status.message().c_str());
//
// The long way, for those who keep a plan: parse() or fill a Problem, make_plan(), run().
#pragma once

#include <attune/arguments.hpp>  // IWYU pragma: export
#include <attune/attention.hpp>  // IWYU pragma: export
#include <attune/executor.hpp>   // IWYU pragma: export
#include <attune/kernels.hpp>    // IWYU pragma: export
#include <attune/oracle.hpp>     // IWYU pragma: export
#include <attune/plan.hpp>       // IWYU pragma: export
#include <attune/problem.hpp>    // IWYU pragma: export
#include <attune/status.hpp>     // IWYU pragma: export
#include <attune/tensor.hpp>     // IWYU pragma: export
