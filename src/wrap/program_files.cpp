// The files that a program names: kernels and constants.
#include <fmt/format.h>

#include <map>
#include <system_error>
#include <utility>

#include "io/file.h"
#include "io/no_throw.h"
#include "io/safetensors.h"
#include "wrap/binary_reader.h"
#include "wrap/program_reader.h"
#include "wrap/triton_metadata.h"

namespace attune::wrap {

namespace {

constexpr std::uint64_t kMostKernelBytes = std::uint64_t{256} << 20;

Status read_bytes(const std::filesystem::path& path, std::vector<std::byte>& bytes) {
  auto read = read_file(path, kMostKernelBytes);
  if (!read.ok()) return read.status();
  bytes = *std::move(read);
  return {};
}

// Metadata, and the compiled files of the same name beside it.
Status read_triton(const Binary& entry, std::vector<Binary>& found) {
  std::vector<std::byte> text;
  if (Status status = read_bytes(entry.path, text); !status.ok()) return status;
  const auto metadata =
      parse_triton_metadata({reinterpret_cast<const char*>(text.data()), text.size()});
  if (!metadata.ok()) {
    return {metadata.status().code(),
            fmt::format("{}:{}", entry.path.string(), metadata.status().message())};
  }
  const std::size_t before = found.size();
  for (const char* extension : {".cubin", ".ptx"}) {
    Binary binary = entry;
    binary.path.replace_extension(extension);
    std::error_code error;
    if (!std::filesystem::exists(binary.path, error)) continue;
    binary.symbol = metadata->name;
    binary.target = metadata->target;
    binary.target_declared = true;
    binary.launch = metadata->launch;
    if (Status status = read_bytes(binary.path, binary.bytes); !status.ok()) return status;
    if (const Status status = read_binary(binary); !status.ok()) {
      return {status.code(), fmt::format("{} (by its metadata, {})", status.message(),
                                         entry.path.filename().string())};
    }
    // PTX of one architecture's own features runs nowhere else, where the cubin does already.
    if (binary.form == BinaryForm::ptx && binary.target.variant != 0 && found.size() > before) {
      continue;
    }
    found.push_back(std::move(binary));
  }
  if (found.size() > before) return {};
  return {Code::io_error,
          fmt::format("{}: there is neither a .cubin nor a .ptx of this name beside it",
                      entry.path.string())};
}

Status load_kernels(Program& program, const std::filesystem::path& folder) {
  for (Kernel& kernel : program.kernels) {
    for (Configuration& configuration : kernel.configurations) {
      std::vector<Binary> found;
      for (Binary& binary : configuration.binaries) {
        binary.path = folder / binary.path;
        Status status;
        if (binary.metadata) {
          status = read_triton(binary, found);
        } else {
          status = read_bytes(binary.path, binary.bytes);
          if (status.ok()) status = read_binary(binary);
        }
        if (!status.ok()) return at(binary.place, status.message());
        if (!binary.metadata) found.push_back(std::move(binary));
      }
      configuration.binaries = std::move(found);
    }
  }
  return {};
}

Element element_of(DType dtype) {
  return dtype == DType::f8e4m3 ? Element::f8e4m3 : static_cast<Element>(dtype);
}
static_assert(static_cast<int>(Element::u8) == static_cast<int>(DType::u8));

Status load_constants(Program& program, const std::filesystem::path& folder) {
  std::map<std::filesystem::path, std::map<std::string, std::shared_ptr<const Tensor>>> files;
  for (TensorDeclaration& tensor : program.tensors) {
    if (tensor.role != TensorRole::constant) continue;
    const std::filesystem::path path = folder / tensor.file;
    auto found = files.find(path);
    if (found == files.end()) {
      auto read = read_safetensors(path);
      if (!read.ok()) return at(tensor.place, read.status().message());
      found = files.emplace(path, std::map<std::string, std::shared_ptr<const Tensor>>{}).first;
      for (Tensor& one : read->tensors) {
        std::string name = one.name;
        found->second[std::move(name)] = std::make_shared<const Tensor>(std::move(one));
      }
    }
    const auto data = found->second.find(tensor.tensor);
    if (data == found->second.end()) {
      return at(tensor.place, fmt::format("constants.{}: {} has no tensor {}", tensor.name,
                                          path.string(), in_quotes(tensor.tensor)));
    }
    tensor.data = data->second;
    tensor.element = element_of(tensor.data->dtype);
    if (tensor.data->rank() > kMaxTensorRank) {
      return at(tensor.place, fmt::format("constants.{}: it has {} dimensions, at most {} are used",
                                          tensor.name, tensor.data->rank(), kMaxTensorRank));
    }
    for (const std::int64_t extent : tensor.data->shape) tensor.shape.emplace_back(extent);
    tensor.strides = row_major_strides(tensor.shape);
  }
  // Views of constants were read when their dtype was not known yet.
  for (TensorDeclaration& tensor : program.tensors) {
    const std::size_t storage =
        program.storage_of(static_cast<std::size_t>(&tensor - program.tensors.data()));
    if (tensor.role == TensorRole::view && program.tensors[storage].role == TensorRole::constant) {
      tensor.element = program.tensors[storage].element;
    }
  }
  return {};
}

}  // namespace

Status load_files(Program& program, const std::filesystem::path& folder) {
  return no_throw([&]() -> Status {
    if (Status status = load_constants(program, folder); !status.ok()) return status;
    return load_kernels(program, folder);
  });
}

}  // namespace attune::wrap
