// A call in PyTorch's eager mode, where a few Python frames would cost as much as a small kernel. PyTorch
// is known by what attune._torch_ops hands over: a type, functions that say who looks on, and apply().
#include <array>
#include <initializer_list>

#include "attention.h"

namespace attune::python {
namespace {

// Where options stand that may want gradients; src/attune/_options.py.
constexpr int kLearned = 3;  // bias, alibi_slopes, sink

// All live as long as the process.
struct Torch {
  PyTypeObject* tensor = nullptr;
  PyObject* get_num_threads = nullptr;
  PyObject* is_grad_enabled = nullptr;
  PyObject* count_modes = nullptr;
  PyObject* transforms = nullptr;
  PyObject* apply = nullptr;  // of EagerAttention
};
Torch torch;

nb::object call(PyObject* function) {
  nb::object result = nb::steal<nb::object>(PyObject_CallNoArgs(function));
  if (!result.is_valid()) throw nb::python_error();
  return result;
}

bool is_tensor(nb::handle array) { return Py_TYPE(array.ptr()) == torch.tensor; }

bool is_kind_of_tensor(nb::handle array) {
  return PyType_IsSubtype(Py_TYPE(array.ptr()), torch.tensor) != 0;
}

bool requires_grad(nb::handle array) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  if (array.is_none()) return false;
  const nb::object value = nb::steal<nb::object>(PyObject_GetAttr(array.ptr(), name));
  if (!value.is_valid()) throw nb::python_error();
  return value.ptr() == Py_True;
}

// What a call of a certain shape asks of its arrays.
enum Demands : int { kNone, kFourDimensions, kFourDimensionsAndEqualHeads };

// [B, H, S, D] each, on a CPU or a CUDA GPU.
bool meets(Demands demands, nb::handle q, nb::handle k, nb::handle v) {
  std::array<dlpack::Tensor, 3> tensors{};
  const std::array arrays = {q, k, v};
  for (std::size_t n = 0; n < arrays.size(); ++n) {
    if (!peek(arrays[n], &tensors[n])) return false;  // a meta tensor
    if (demands == kNone) return true;
    if (tensors[n].rank != 4) return false;
  }
  const auto heads = [&](std::size_t n) { return tensors[n].shape[1]; };
  return demands == kFourDimensions || (heads(0) == heads(1) && heads(1) == heads(2));
}

// Whether nobody but autograd looks on, so that a call may go past PyTorch's dispatcher. (Subclasses,
// such as parameters and fake tensors, go through it.)
bool is_eager(nb::handle q, nb::handle k, nb::handle v, nb::handle options) {
  if (torch.tensor == nullptr || !is_tensor(q) || !is_tensor(k) || !is_tensor(v)) return false;
  const nb::handle bias = at(options, 0);
  if (!bias.is_none() && !is_tensor(bias)) return false;
  for (int index = 1; index < kLearned; ++index) {
    const nb::handle learned = at(options, index);
    if (!learned.is_none() && !is_kind_of_tensor(learned)) return false;
  }
  return nb::cast<int>(call(torch.count_modes)) == 0 && call(torch.transforms).is_none();
}

nb::object attend(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse,
                  nb::handle options, int demands) {
  const nb::object otherwise = nb::borrow(Py_NotImplemented);
  if (!is_eager(q, k, v, options)) return otherwise;
  if (!meets(static_cast<Demands>(demands), q, k, v)) return otherwise;
  bool plain = out.is_none() && lse.ptr() == Py_False;
  bool recorded = false;
  if (call(torch.is_grad_enabled).ptr() == Py_True) {
    recorded = requires_grad(q) || requires_grad(k) || requires_grad(v);
    for (int index = 0; index < kLearned; ++index) {
      plain = plain && at(options, index).is_none();
      recorded = recorded || requires_grad(at(options, index));
    }
  }
  if (!recorded) return forward(q, k, v, out, lse, options);
  if (!plain) return otherwise;
  const std::array arguments = {q.ptr(), k.ptr(), v.ptr(), options.ptr()};
  nb::object result = nb::steal<nb::object>(
      PyObject_Vectorcall(torch.apply, arguments.data(), arguments.size(), nullptr));
  if (!result.is_valid()) throw nb::python_error();
  return result;
}

// EagerAttention.forward: what the backward pass reads is kept in `context`.
nb::object record(nb::handle context, nb::handle q, nb::handle k, nb::handle v,
                  nb::handle options) {
  static PyObject* const to_save = PyUnicode_InternFromString("to_save");
  static PyObject* const kept = PyUnicode_InternFromString("options");
  const nb::object results = forward(q, k, v, nb::none(), nb::handle(Py_True), options);
  const nb::handle o = at(results, 0);
  const nb::object saved = nb::make_tuple(q, k, v, o, at(results, 1));
  if (PyObject_SetAttr(context.ptr(), to_save, saved.ptr()) != 0 ||
      PyObject_SetAttr(context.ptr(), kept, options.ptr()) != 0) {
    throw nb::python_error();
  }
  return nb::borrow(o);
}

void take_torch(nb::handle tensor, nb::handle get_num_threads, nb::handle is_grad_enabled,
                nb::handle count_modes, nb::handle transforms, nb::handle apply) {
  if (PyType_Check(tensor.ptr()) == 0) throw nb::type_error("tensor is no type");
  for (const nb::handle object :
       {tensor, get_num_threads, is_grad_enabled, count_modes, transforms, apply}) {
    object.inc_ref();
  }
  torch = {reinterpret_cast<PyTypeObject*>(tensor.ptr()),
           get_num_threads.ptr(),
           is_grad_enabled.ptr(),
           count_modes.ptr(),
           transforms.ptr(),
           apply.ptr()};
}

}  // namespace

int threads_for(nb::handle array) {
  if (torch.tensor == nullptr || !is_kind_of_tensor(array)) return 0;
  return nb::cast<int>(call(torch.get_num_threads));
}

void bind_eager(nb::module_& module) {
  module.def("attend", &attend, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out").none(),
             nb::arg("lse"), nb::arg("options"), nb::arg("demands"));
  // No names of arguments, and at most 8: nanobind takes those by the shortest way.
  module.def("record", &record);
  module.def("take_torch", &take_torch, nb::arg("tensor"), nb::arg("get_num_threads"),
             nb::arg("is_grad_enabled"), nb::arg("count_modes"), nb::arg("transforms"),
             nb::arg("apply"));
}

}  // namespace attune::python
