// Arrays of any framework as TensorViews: by DLPack's exchange API where the framework has it
// (PyTorch), else by the buffer protocol (NumPy), else by __dlpack__ (CuPy, JAX, ...).
#pragma once

#include <nanobind/nanobind.h>

#include <attune/tensor.hpp>
#include <cstdint>
#include <vector>

#include "dlpack.h"

namespace attune::python {

namespace nb = nanobind;

// [B, H, S, D] is read as [B, S, H, D] with the strides exchanged.
enum class Layout : std::uint8_t { sequence_first, heads_first };

// What the arrays of one call have in common, and what has to outlive it. Not thread-safe; use
// while holding the GIL.
class Arrays {
 public:
  // The array that names the framework and the device. stream: a cudaStream_t as a number, or -1
  // for the framework's current one.
  Arrays(nb::handle first, std::int64_t stream);
  ~Arrays();
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;

  // The array that the constructor was given.
  [[nodiscard]] const TensorView& first() const { return first_; }
  [[nodiscard]] bool on_cuda() const { return device_.type == dlpack::kCuda; }
  [[nodiscard]] int device_index() const { return device_.index; }
  [[nodiscard]] void* stream() const { return stream_; }
  // Whether allocate() and workspace() can be used.
  [[nodiscard]] bool can_allocate() const { return api_ != nullptr; }

  // None is an empty view. `writes`: a result goes there, so that it must not be read-only. Throws TypeError for what is no array or has a dtype that Attune does not
  // know, ValueError for one on another device or of more than 4 dimensions.
  [[nodiscard]] TensorView read(nb::handle object, const char* name, bool writes = false);
  // A row-major array of the framework; `object` is it, with the axes 1 and 2 exchanged when
  // heads_first, while `view` is not.
  struct Allocated {
    nb::object object;
    TensorView view;
  };
  [[nodiscard]] Allocated allocate(DType dtype, const std::vector<std::int64_t>& shape,
                                   bool exchange_axes);
  // Scratch memory of the framework, until the end of this object; null when there is none.
  [[nodiscard]] void* workspace(std::size_t bytes);

 private:
  TensorView read_exchange(nb::handle object, const char* name);
  TensorView read_buffer(nb::handle object, const char* name, bool writes);
  TensorView read_protocol(nb::handle object, const char* name, bool writes);
  TensorView take(const dlpack::Tensor& tensor, const char* name);
  [[nodiscard]] dlpack::ManagedVersioned* allocate_managed(dlpack::DataType dtype,
                                                           const std::int64_t* shape, int rank);

  const dlpack::ExchangeApi* api_ = nullptr;
  PyTypeObject* type_ = nullptr;  // whose api_ it is
  bool has_device_ = false;
  dlpack::Device device_{dlpack::kCpu, 0};
  void* stream_ = nullptr;
  TensorView first_;
  std::vector<nb::object> held_;
  std::vector<Py_buffer> buffers_;
  std::vector<dlpack::ManagedVersioned*> scratch_;
};

// The array as DLPack's exchange API shows it, while it lives; false where its type has none, or where
// it is on neither a CPU nor a CUDA GPU.
[[nodiscard]] bool peek(nb::handle array, dlpack::Tensor* out);
// [B, S, H, D], or [tokens, H, D] as [1, tokens, H, D].
[[nodiscard]] TensorView with_batch(TensorView view);
[[nodiscard]] TensorView exchange_axes(TensorView view);
// Dimensions of 1 in front, up to 4.
[[nodiscard]] TensorView broadcast_to_4(TensorView view);

}  // namespace attune::python
