#include "attention.h"

namespace attune::python {
namespace {

PyObject* unsupported_error = nullptr;
PyObject* device_error = nullptr;

PyObject* add_exception(nb::module_& module, const char* name, PyObject* base, const char* doc) {
  const std::string qualified = std::string("attune.") + name;
  PyObject* type = PyErr_NewExceptionWithDoc(qualified.c_str(), doc, base, nullptr);
  module.attr(name) = nb::handle(type);
  return type;
}

PyObject* exception_for(Code code) {
  switch (code) {
    case Code::invalid_argument:
      return PyExc_ValueError;
    case Code::unsupported:
      return unsupported_error;
    case Code::out_of_memory:
      return PyExc_MemoryError;
    case Code::io_error:
      return PyExc_OSError;
    case Code::device_error:
      return device_error;
    case Code::ok:
    case Code::internal:
      break;
  }
  return PyExc_RuntimeError;
}

}  // namespace

void bind_errors(nb::module_& module) {
  unsupported_error = add_exception(module, "UnsupportedError", PyExc_NotImplementedError,
                                    "What is asked makes sense, but no kernel on this machine "
                                    "computes it. The text says why not, "
                                    "kernel by kernel.");
  device_error =
      add_exception(module, "DeviceError", PyExc_RuntimeError,
                    "The GPU or its driver failed. The text has the driver's own words.");
}

void raise_unless_ok(const Status& status) {
  if (status.ok()) return;
  PyErr_SetString(exception_for(status.code()), status.message().c_str());
  throw nb::python_error();
}

}  // namespace attune::python
