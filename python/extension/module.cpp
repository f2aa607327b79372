// attune._core: the C++ API as the Python files beside it call it. Nothing here is public.
#include <attune/attune.h>

#include "attention.h"

NB_MODULE(_core, module) {
  module.attr("version") = attune_version();
  attune::python::bind_errors(module);
  attune::python::bind_attention(module);
  attune::python::bind_eager(module);
  attune::python::bind_plans(module);
}
