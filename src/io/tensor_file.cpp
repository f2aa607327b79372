#include "io/tensor_file.h"

#include <fmt/format.h>

#include <utility>

#include "io/file.h"
#include "io/no_throw.h"
#include "io/npy.h"
#include "io/safetensors.h"

namespace attune {
namespace {

Status unknown_extension(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  return {Code::invalid_argument,
          fmt::format("{}: {}; files of tensors end in .safetensors or .npy", path.string(),
                      extension.empty() ? "the name has no extension"
                                        : fmt::format("the extension {} is not known", extension))};
}

}  // namespace

Expected<std::vector<Tensor>> read_tensors(const std::filesystem::path& path) {
  return no_throw([&]() -> Expected<std::vector<Tensor>> {
    if (path.extension() == ".safetensors") {
      auto contents = read_safetensors(path);
      if (!contents.ok()) return contents.status();
      return std::move(contents->tensors);
    }
    if (path.extension() == ".npy") {
      auto tensor = read_npy(path);
      if (!tensor.ok()) return tensor.status();
      std::vector<Tensor> tensors;
      tensors.push_back(std::move(*tensor));
      return tensors;
    }
    return unknown_extension(path);
  });
}

Status write_tensors(const std::filesystem::path& path, const std::vector<Tensor>& tensors,
                     const Metadata& metadata) {
  return no_throw([&]() -> Status {
    if (path.extension() == ".safetensors") return write_safetensors(path, tensors, metadata);
    if (path.extension() != ".npy") return unknown_extension(path);
    if (tensors.size() == 1) return write_npy(path, tensors.front());
    return {Code::invalid_argument,
            fmt::format("{}: there are {} tensors to write, but a .npy file holds exactly one; "
                        ".safetensors holds any number",
                        path.string(), tensors.size())};
  });
}

}  // namespace attune
