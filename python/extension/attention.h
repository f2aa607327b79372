// The options of a call as they come from Python, and Attune's errors as Python's.
#pragma once

#include <nanobind/nanobind.h>

#include <attune/attention.hpp>
#include <attune/status.hpp>

#include "arrays.h"

namespace attune::python {

// Throws the Python exception that a refusal stands for; returns when the status is ok.
void raise_unless_ok(const Status& status);

// What stands at a place of the tuple of options.
[[nodiscard]] inline nb::handle at(nb::handle options, int index) {
  PyObject* item = PyTuple_GetItem(options.ptr(), index);
  if (item == nullptr) throw nb::python_error();
  return item;
}

// o, or (o, lse), of PyTorch's or another framework's arrays; `out` and `lse` as attune.attention()'s,
// `options` the tuple of attune/_options.py.
[[nodiscard]] nb::object forward(nb::handle q, nb::handle k, nb::handle v, nb::handle out,
                                 nb::handle lse, nb::handle options);

// The number of threads that PyTorch computes on, for its tensors on the CPU; 0 for other arrays.
[[nodiscard]] int threads_for(nb::handle array);

void bind_errors(nb::module_& module);
void bind_attention(nb::module_& module);
void bind_eager(nb::module_& module);
void bind_plans(nb::module_& module);

}  // namespace attune::python
