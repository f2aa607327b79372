#include "cli/outputs.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "cli/inputs.h"
#include "io/tensor_file.h"
#include "problem/shapes.h"

namespace attune::cli {

Expected<std::vector<Tensor>> allocate_outputs(const Problem& problem, bool bhsd,
                                               Arguments& arguments) {
  std::vector<Tensor> tensors;
  tensors.reserve(kTensorCount);
  for (const TensorSpec& spec : tensors_of(problem)) {
    if (spec.role != Role::output) continue;
    std::vector<std::int64_t> shape(spec.shape.begin(), spec.shape.begin() + spec.rank);
    // The gradient of the bias is of rank 4 too, but heads come before queries in it anyway.
    const bool swapped = bhsd && spec.rank == 4 && std::string_view(spec.name) != "grad_bias";
    if (swapped) std::swap(shape[1], shape[2]);
    auto tensor = make_tensor(spec.name, spec.dtype, std::move(shape));
    if (!tensor.ok()) return tensor.status();
    tensors.push_back(*std::move(tensor));
    arguments.*spec.view = logical_view(tensors.back(), swapped);
  }
  return tensors;
}

Status check_output_name(const std::filesystem::path& path) {
  if (path.extension() == ".safetensors" || path.extension() == ".npy") return {};
  return {Code::invalid_argument,
          fmt::format("-o {}: the name has to end in .safetensors or .npy, so that the format is "
                      "clear",
                      path.string())};
}

Expected<std::vector<std::string>> write_outputs(const std::filesystem::path& path,
                                                 const std::vector<Tensor>& tensors) {
  std::vector<std::string> written;
  if (path.extension() == ".safetensors") {
    if (Status status = write_tensors(path, tensors); !status.ok()) return status;
    written.push_back(path.string());
    return written;
  }
  for (const Tensor& tensor : tensors) {
    std::filesystem::path file = path;
    if (!written.empty()) {
      file.replace_filename(fmt::format("{}_{}.npy", path.stem().string(), tensor.name));
    }
    if (Status status = write_tensors(file, {tensor}); !status.ok()) return status;
    written.push_back(file.string());
  }
  return written;
}

}  // namespace attune::cli
