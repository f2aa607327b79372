#include "arrays.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <unordered_map>

namespace attune::python {
namespace {

constexpr const char* kExchangeApi = "__dlpack_c_exchange_api__";

[[noreturn]] void refuse_type(const std::string& message) { throw nb::type_error(message.c_str()); }
[[noreturn]] void refuse_value(const std::string& message) {
  throw nb::value_error(message.c_str());
}

[[noreturn]] void refuse_read_only(const char* name) {
  refuse_value(std::string(name) + " is read-only; a result is to be written there");
}

std::string type_of(nb::handle object) {
  return nb::cast<std::string>(nb::type_name(object.type()));
}

// Looked for once a type; the entries keep their types alive.
const dlpack::ExchangeApi* exchange_api_of(PyTypeObject* type) {
  static auto& known = *new std::unordered_map<PyTypeObject*, const dlpack::ExchangeApi*>;
  if (const auto found = known.find(type); found != known.end()) return found->second;
  const dlpack::ExchangeApi* api = nullptr;
  const nb::handle as_object(reinterpret_cast<PyObject*>(type));
  if (nb::hasattr(as_object, kExchangeApi)) {
    const nb::object capsule = nb::getattr(as_object, kExchangeApi);
    api = static_cast<const dlpack::ExchangeApi*>(
        PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (api == nullptr) PyErr_Clear();
  }
  while (api != nullptr && api->version.major != 1) api = api->previous;
  if (api != nullptr && api->view_of_object == nullptr) api = nullptr;
  Py_INCREF(as_object.ptr());
  known.emplace(type, api);
  return api;
}

std::string say_device(const dlpack::Device& device) {
  if (device.type == dlpack::kCpu) return "cpu";
  if (device.type == dlpack::kCuda) return "cuda:" + std::to_string(device.index);
  return "device type " + std::to_string(device.type) + " of DLPack";
}

// Memory that the CPU, or a GPU, reads as if it were its own counts as that.
dlpack::Device plain_device(dlpack::Device device) {
  if (device.type == dlpack::kCpu || device.type == dlpack::kCudaHost) return {dlpack::kCpu, 0};
  if (device.type == dlpack::kCudaManaged) return {dlpack::kCuda, device.index};
  return device;
}

DType dtype_of(const dlpack::DataType& dtype, const char* name) {
  struct Known {
    dlpack::TypeCode code;
    int bits;
    DType dtype;
  };
  constexpr std::array kKnown = {
      Known{dlpack::kFloat, 32, DType::f32},        Known{dlpack::kFloat, 16, DType::f16},
      Known{dlpack::kBfloat, 16, DType::bf16},      Known{dlpack::kFloat, 64, DType::f64},
      Known{dlpack::kBool, 8, DType::boolean},      Known{dlpack::kInt, 32, DType::i32},
      Known{dlpack::kInt, 64, DType::i64},          Known{dlpack::kUInt, 8, DType::u8},
      Known{dlpack::kFloat8E4M3, 8, DType::f8e4m3},
  };
  for (const Known& known : kKnown) {
    if (known.code == dtype.code && known.bits == dtype.bits && dtype.lanes == 1) {
      return known.dtype;
    }
  }
  refuse_type(std::string(name) + " has DLPack's dtype (code " + std::to_string(dtype.code) + ", " +
              std::to_string(dtype.bits) +
              " bits), which attention does not take; it takes float32, "
              "float16, bfloat16 and float8_e4m3fn, masks of bool, and int32 for lengths");
}

dlpack::DataType dlpack_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return {dlpack::kFloat, 16, 1};
    case DType::bf16:
      return {dlpack::kBfloat, 16, 1};
    case DType::u8:
      return {dlpack::kUInt, 8, 1};
    default:
      return {dlpack::kFloat, 32, 1};
  }
}

DType dtype_of_format(const char* format, const char* name) {
  const std::string text = format == nullptr ? "B" : format;
  const char letter = text.empty() ? '?' : text.back();
  const bool native = text.size() == 1 || (text.size() == 2 && (text[0] == '<' || text[0] == '='));
  if (native) {
    switch (letter) {
      case 'f':
        return DType::f32;
      case 'e':
        return DType::f16;
      case 'd':
        return DType::f64;
      case '?':
        return DType::boolean;
      case 'i':
        return DType::i32;
      case 'l':
      case 'q':
        return DType::i64;
      case 'B':
        return DType::u8;
      default:
        break;
    }
  }
  refuse_type(std::string(name) + " has elements of format '" + text +
              "', which attention does not take; it takes float32, float16, bfloat16 and "
              "float8_e4m3fn, masks of bool, and int32 for lengths");
}

void check_rank(int rank, const char* name) {
  if (rank <= kMaxRank) return;
  refuse_value(std::string(name) + " has " + std::to_string(rank) + " dimensions; the most are " +
               std::to_string(kMaxRank));
}

void raise_error(void*, const char* kind, const char* message) {
  PyErr_Format(std::strcmp(kind, "MemoryError") == 0 ? PyExc_MemoryError : PyExc_RuntimeError, "%s",
               message);
}

// What owns an allocated array whose shape and strides are not those that it was allocated with.
struct Exchanged {
  dlpack::ManagedVersioned outer;
  dlpack::ManagedVersioned* inner;
  std::array<std::int64_t, kMaxRank> shape, strides;
};

dlpack::ManagedVersioned* exchange(dlpack::ManagedVersioned* inner) {
  auto* exchanged = new Exchanged{*inner, inner, {}, {}};
  dlpack::Tensor& tensor = exchanged->outer.tensor;
  std::copy_n(tensor.shape, tensor.rank, exchanged->shape.begin());
  std::copy_n(tensor.strides, tensor.rank, exchanged->strides.begin());
  std::swap(exchanged->shape[1], exchanged->shape[2]);
  std::swap(exchanged->strides[1], exchanged->strides[2]);
  tensor.shape = exchanged->shape.data();
  tensor.strides = exchanged->strides.data();
  exchanged->outer.context = exchanged;
  exchanged->outer.deleter = [](dlpack::ManagedVersioned* self) {
    auto* whole = static_cast<Exchanged*>(self->context);
    if (whole->inner->deleter != nullptr) whole->inner->deleter(whole->inner);
    delete whole;
  };
  return &exchanged->outer;
}

}  // namespace

Arrays::Arrays(nb::handle first, std::int64_t stream)
    : api_(exchange_api_of(Py_TYPE(first.ptr()))), type_(Py_TYPE(first.ptr())) {
  if (stream > 0) stream_ = std::bit_cast<void*>(stream);
  first_ = read(first, "q");
  if (stream >= 0 || api_ == nullptr || !on_cuda()) return;
  if (api_->current_stream(device_.type, device_.index, &stream_) != 0) throw nb::python_error();
}

Arrays::~Arrays() {
  for (Py_buffer& buffer : buffers_) PyBuffer_Release(&buffer);
  for (dlpack::ManagedVersioned* scratch : scratch_) {
    if (scratch->deleter != nullptr) scratch->deleter(scratch);
  }
}

TensorView Arrays::read(nb::handle object, const char* name, bool writes) {
  if (object.is_none()) return {};
  if (type_ == Py_TYPE(object.ptr()) ? api_ != nullptr
                                     : exchange_api_of(Py_TYPE(object.ptr())) != nullptr) {
    return read_exchange(object, name);
  }
  if (PyObject_CheckBuffer(object.ptr()) != 0) return read_buffer(object, name, writes);
  return read_protocol(object, name, writes);
}

TensorView Arrays::take(const dlpack::Tensor& tensor, const char* name) {
  const dlpack::Device device = plain_device(tensor.device);
  if (!has_device_) {
    if (device.type != dlpack::kCpu && device.type != dlpack::kCuda) {
      refuse_value(std::string(name) + " is on " + say_device(device) +
                   "; attention runs on CPUs and CUDA GPUs");
    }
    device_ = device;
    has_device_ = true;
  } else if (device.type != device_.type || device.index != device_.index) {
    refuse_value(std::string(name) + " is on " + say_device(device) + ", but q is on " +
                 say_device(device_) + "; move one of them");
  }
  check_rank(tensor.rank, name);
  TensorView view;
  view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  view.dtype = dtype_of(tensor.dtype, name);
  view.rank = tensor.rank;
  std::copy_n(tensor.shape, tensor.rank, view.shape.begin());
  if (tensor.strides != nullptr) {
    std::copy_n(tensor.strides, tensor.rank, view.strides.begin());
  } else {
    view.strides = contiguous_strides(view.shape, view.rank);
  }
  return view;
}

TensorView Arrays::read_exchange(nb::handle object, const char* name) {
  const dlpack::ExchangeApi* api = exchange_api_of(Py_TYPE(object.ptr()));
  dlpack::Tensor tensor{};
  if (api->view_of_object(object.ptr(), &tensor) != 0) throw nb::python_error();
  return take(tensor, name);
}

TensorView Arrays::read_buffer(nb::handle object, const char* name, bool writes) {
  constexpr int kWanted = PyBUF_STRIDES | PyBUF_FORMAT;
  Py_buffer buffer{};
  nb::object readable = nb::borrow<nb::object>(object);
  std::optional<DType> shown;  // of an array that is seen as another dtype
  if (PyObject_GetBuffer(object.ptr(), &buffer, kWanted) != 0) {
    PyErr_Clear();
    try {
      return read_protocol(object, name, writes);
    } catch (const nb::python_error&) {
      // NumPy exports no dtype of ml_dtypes by either way; their bits are those of unsigned integers.
      if (nb::hasattr(object, "dtype") && nb::hasattr(object, "view")) {
        const auto dtype = nb::cast<std::string>(nb::str(nb::getattr(object, "dtype")));
        if (dtype == "bfloat16") shown = DType::bf16;
        if (dtype == "float8_e4m3fn") shown = DType::f8e4m3;
      }
      if (!shown) throw;
    }
    readable = object.attr("view")(*shown == DType::bf16 ? "uint16" : "uint8");
    if (PyObject_GetBuffer(readable.ptr(), &buffer, kWanted) != 0) throw nb::python_error();
  }
  buffers_.push_back(buffer);
  if (writes && buffer.readonly != 0) refuse_read_only(name);
  held_.push_back(readable);
  check_rank(buffer.ndim, name);
  TensorView view;
  view.dtype = shown ? *shown : dtype_of_format(buffer.format, name);
  view.rank = buffer.ndim;
  view.data = buffer.buf;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(buffer.ndim); ++axis) {
    view.shape[axis] = buffer.shape[axis];
    if (view.shape[axis] > 1 && buffer.strides[axis] % buffer.itemsize != 0) {
      refuse_value(std::string(name) + " has a stride of " + std::to_string(buffer.strides[axis]) +
                   " bytes, which is no multiple of its elements' " +
                   std::to_string(buffer.itemsize));
    }
    view.strides[axis] = buffer.strides[axis] / buffer.itemsize;
  }
  dlpack::Tensor device_only{};
  device_only.device = {dlpack::kCpu, 0};
  device_only.dtype = {dlpack::kFloat, 32, 1};
  (void)take(device_only, name);
  return view;
}

TensorView Arrays::read_protocol(nb::handle object, const char* name, bool writes) {
  if (!nb::hasattr(object, "__dlpack__") || !nb::hasattr(object, "__dlpack_device__")) {
    refuse_type(std::string(name) + " is a " + type_of(object) +
                ", which is no array: it offers neither DLPack nor a buffer");
  }
  const auto device = nb::cast<nb::tuple>(object.attr("__dlpack_device__")());
  nb::dict options;
  if (nb::cast<int>(device[0]) == dlpack::kCuda) {
    // The producer makes this stream wait for what is still being computed. 0 is not allowed: the
    // legacy default stream is 1.
    const auto number = reinterpret_cast<std::intptr_t>(stream_);
    options["stream"] = nb::int_(number == 0 ? 1 : number);
  }
  nb::object capsule;
  try {
    nb::dict versioned;
    versioned.update(options);
    versioned["max_version"] = nb::make_tuple(1, 0);
    capsule = object.attr("__dlpack__")(**versioned);
  } catch (nb::python_error& error) {  // a producer from before DLPack 1.0
    if (!error.matches(PyExc_TypeError)) throw;
    capsule = object.attr("__dlpack__")(**options);
  }
  held_.push_back(capsule);  // not consumed: it frees itself
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
    const auto* versioned = static_cast<dlpack::ManagedVersioned*>(
        PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (writes && (versioned->flags & dlpack::kReadOnly) != 0) refuse_read_only(name);
    return take(versioned->tensor, name);
  }
  auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (managed == nullptr) throw nb::python_error();
  return take(managed->tensor, name);
}

dlpack::ManagedVersioned* Arrays::allocate_managed(dlpack::DataType dtype,
                                                   const std::int64_t* shape, int rank) {
  std::array<std::int64_t, kMaxRank> extents{};
  std::copy_n(shape, rank, extents.begin());
  std::array<std::int64_t, kMaxRank> strides = contiguous_strides(extents, rank);
  dlpack::Tensor prototype{};
  prototype.device = device_;
  prototype.dtype = dtype;
  prototype.rank = rank;
  prototype.shape = extents.data();
  prototype.strides = strides.data();
  dlpack::ManagedVersioned* managed = nullptr;
  if (api_->allocate(&prototype, &managed, nullptr, raise_error) != 0) throw nb::python_error();
  return managed;
}

Arrays::Allocated Arrays::allocate(DType dtype, const std::vector<std::int64_t>& shape,
                                   bool exchange_axes) {
  dlpack::ManagedVersioned* managed =
      allocate_managed(dlpack_of(dtype), shape.data(), static_cast<int>(shape.size()));
  const TensorView view = take(managed->tensor, "a result");
  if (exchange_axes) managed = exchange(managed);
  void* object = nullptr;
  if (api_->managed_to_object(managed, &object) != 0) throw nb::python_error();
  return {nb::steal<nb::object>(static_cast<PyObject*>(object)), view};
}

void* Arrays::workspace(std::size_t bytes) {
  const auto size = static_cast<std::int64_t>(bytes);
  dlpack::ManagedVersioned* managed = nullptr;
  try {
    managed = allocate_managed(dlpack_of(DType::u8), &size, 1);
  } catch (nb::python_error&) {
    return nullptr;  // no memory: the call says so, with the kernel and the bytes
  }
  scratch_.push_back(managed);
  return static_cast<char*>(managed->tensor.data) + managed->tensor.byte_offset;
}

bool peek(nb::handle array, dlpack::Tensor* out) {
  const dlpack::ExchangeApi* api = exchange_api_of(Py_TYPE(array.ptr()));
  if (api == nullptr) return false;
  if (api->view_of_object(array.ptr(), out) != 0) {
    PyErr_Clear();
    return false;
  }
  const dlpack::Device device = plain_device(out->device);
  return device.type == dlpack::kCpu || device.type == dlpack::kCuda;
}

TensorView exchange_axes(TensorView view) {
  if (view.rank == 4) {
    std::swap(view.shape[1], view.shape[2]);
    std::swap(view.strides[1], view.strides[2]);
  }
  return view;
}

TensorView with_batch(TensorView view) {
  if (view.rank != 3) return view;
  TensorView batched = view;
  batched.rank = 4;
  batched.shape[0] = 1;
  batched.strides[0] = 0;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    batched.shape[axis + 1] = view.shape[axis];
    batched.strides[axis + 1] = view.strides[axis];
  }
  return batched;
}

TensorView broadcast_to_4(TensorView view) {
  if (view.empty()) return view;
  while (view.rank < 4) {
    for (std::size_t axis = static_cast<std::size_t>(view.rank); axis > 0; --axis) {
      view.shape[axis] = view.shape[axis - 1];
      view.strides[axis] = view.strides[axis - 1];
    }
    view.shape[0] = 1;
    view.strides[0] = 0;
    ++view.rank;
  }
  return view;
}

}  // namespace attune::python
