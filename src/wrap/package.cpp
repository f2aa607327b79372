#include <fmt/format.h>

#include <map>
#include <span>
#include <system_error>
#include <utility>

#include "io/file.h"
#include "io/no_throw.h"
#include "wrap/blueprint.h"
#include "wrap/generator.h"

namespace attune::wrap {

Expected<std::vector<PackageFile>> generate(const Program& program,
                                            const GenerateOptions& options) {
  return no_throw([&]() -> Expected<std::vector<PackageFile>> {
    const auto made = make_blueprint(program, options);
    if (!made.ok()) return made.status();
    const Blueprint& b = *made;
    std::vector<PackageFile> files;
    files.push_back({program.name + ".h", emit_header(b)});
    files.push_back({program.name + ".cpp", emit_source(b)});
    files.push_back({program.name + "_runtime.h", emit_runtime(b)});
    files.push_back({"CMakeLists.txt", emit_cmake(b)});
    files.push_back({"main.cpp", emit_main(b)});
    if (options.embed) {
      files.push_back({program.name + "_embedded.cpp", emit_embedded(b)});
      return files;
    }
    if (!options.cpu) {
      for (const PackageImage& image : b.images) files.push_back({image.file, image.bytes});
    }
    if (!b.constants.bytes.empty()) files.push_back({b.constants.file, b.constants.bytes});
    return files;
  });
}

Expected<std::vector<PackageFile>> user_files(const Program& program,
                                              const std::filesystem::path& folder, bool cpu) {
  std::map<std::string, HostFunction> sources;
  const auto take = [&](const HostFunction& function) -> Status {
    if (function.source.empty()) return {};
    const auto [known, fresh] = sources.emplace(function.source.filename().string(), function);
    if (fresh || known->second.source == function.source) return {};
    return at(function.place, fmt::format("{} and {} have the same name in the package",
                                          function.source.string(), known->second.source.string()));
  };
  for (const Step& step : program.steps) {
    Status status;
    if (const auto* call = std::get_if<CallStep>(&step.action)) status = take(call->function);
    if (const auto* kernel = std::get_if<KernelStep>(&step.action); kernel != nullptr && cpu) {
      const Kernel& k = program.kernels[kernel->kernel];
      if (k.fallback) status = take(*k.fallback);
    }
    if (!status.ok()) return status;
  }
  std::vector<PackageFile> files;
  for (const auto& [name, function] : sources) {
    const auto bytes = read_file(folder / function.source);
    if (!bytes.ok()) return at(function.place, bytes.status().message());
    files.push_back({name, {reinterpret_cast<const char*>(bytes->data()), bytes->size()}});
  }
  return files;
}

Status write_package(const std::vector<PackageFile>& files, const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  for (const PackageFile& file : files) {
    const std::span<const std::byte> bytes = std::as_bytes(std::span(file.bytes));
    if (Status status = write_file(folder / file.path, std::span(&bytes, 1)); !status.ok()) {
      return status;
    }
  }
  return {};
}

}  // namespace attune::wrap
