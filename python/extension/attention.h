// The options of a call as they come from Python, and Attune's errors as Python's.
#pragma once

#include <nanobind/nanobind.h>

#include <attune/attention.hpp>
#include <attune/status.hpp>

#include "arrays.h"

namespace attune::python {

// Throws the Python exception that a refusal stands for; returns when the status is ok.
void raise_unless_ok(const Status& status);

void bind_errors(nb::module_& module);
void bind_attention(nb::module_& module);
void bind_plans(nb::module_& module);

}  // namespace attune::python
