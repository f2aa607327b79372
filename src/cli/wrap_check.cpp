#include "cli/wrap_check.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cubin/process.h"
#include "cubin/toolkit.h"
#include "host/environment.h"
#include "io/convert.h"
#include "io/safetensors.h"
#include "launch/memory.h"
#include "wrap/runtime/abi.h"

namespace attune::cli {
namespace {

using Case = std::map<std::string, const Tensor*>;

std::map<std::string, Case> cases_of(const Safetensors& recording) {
  std::map<std::string, Case> cases;
  for (const Tensor& tensor : recording.tensors) {
    const std::size_t slash = tensor.name.find('/');
    const bool named = slash != std::string::npos;
    cases[named ? tensor.name.substr(0, slash) : "recording"]
         [named ? tensor.name.substr(slash + 1) : tensor.name] = &tensor;
  }
  return cases;
}

// With CMake, into the package's own folder.
Status build(const std::filesystem::path& folder) {
  const std::vector<std::filesystem::path> found = toolkit_programs("cmake");
  if (found.empty()) {
    return {Code::unsupported,
            "--check builds the program with CMake, which is not on PATH: install "
            "cmake and a C++ compiler"};
  }
  const std::string cmake = found.front().string();
  const std::string build = (folder / "build").string();
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{cmake, "-S", folder.string(), "-B", build},
        std::vector<std::string>{cmake, "--build", build}}) {
    const auto result = run_process(words);
    if (!result.ok()) return result.status();
    if (result->status != 0) {
      return {Code::internal, fmt::format("the program does not build:\n{}", result->output)};
    }
  }
  return {};
}

// The library with its functions; closed at the end.
class Package {
 public:
  Package() = default;
  ~Package() {
    if (table_ != nullptr && instance_ != nullptr) table_->destroy(instance_);
    if (library_ != nullptr) dlclose(library_);
  }
  Package(const Package&) = delete;
  Package& operator=(const Package&) = delete;

  Status open(const std::filesystem::path& path, const std::string& name) {
    library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) return {Code::io_error, dlerror()};
    void* symbol = dlsym(library_, (name + "_package").c_str());
    if (symbol == nullptr) return {Code::io_error, dlerror()};
    table_ = reinterpret_cast<const attune_wrapped_package* (*)()>(symbol)();
    if (table_->create(path.parent_path().c_str(), 0, &instance_) != ATTUNE_WRAPPED_OK) {
      return {Code::internal, table_->last_error()};
    }
    return {};
  }

  [[nodiscard]] const attune_wrapped_package& table() const { return *table_; }
  Status run(const std::vector<attune_wrapped_tensor>& arguments) {
    if (table_->run(instance_, arguments.data(), nullptr, 0, nullptr) == ATTUNE_WRAPPED_OK)
      return {};
    return {Code::internal, table_->last_error()};
  }

 private:
  void* library_ = nullptr;
  const attune_wrapped_package* table_ = nullptr;
  void* instance_ = nullptr;
};

// A tensor's bytes where the program computes.
class Memory {
 public:
  static Expected<Memory> make(const Tensor& tensor, bool cpu, bool copy) {
    Memory memory;
    if (cpu) {
      memory.host_.resize(tensor.data.size());
      if (copy) memory.host_ = tensor.data;
      return Expected<Memory>(std::move(memory));
    }
    auto buffer = cuda::DeviceBuffer::allocate(0, tensor.data.size());
    if (!buffer.ok()) return buffer.status();
    memory.device_ = std::move(buffer).value();
    if (copy) {
      if (Status status = memory.device_.write(tensor.data.data(), tensor.data.size(), 0);
          !status.ok()) {
        return status;
      }
    }
    return Expected<Memory>(std::move(memory));
  }

  [[nodiscard]] void* address() { return host_.empty() ? device_.data() : host_.data(); }

  Status read(Tensor& into, bool cpu) {
    if (cpu) {
      into.data = host_;
      return {};
    }
    return device_.read(into.data.data(), into.data.size(), 0);
  }

 private:
  AlignedBytes host_;
  cuda::DeviceBuffer device_;
};

// Two units in the last place, as a part of the value.
double standard_tolerance(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return 0x1p-6;
    case DType::f16:
      return 0x1p-9;
    case DType::f32:
      return 0x1p-21;
    case DType::f64:
      return 0x1p-50;
    default:
      return 0;
  }
}

struct Difference {
  double error = 0, largest = 0;
  std::size_t different = 0;  // bytes apart
  bool same_nonfinite = true;
};

Expected<Difference> compare(const Tensor& got, const Tensor& want) {
  Difference d;
  for (std::size_t i = 0; i < want.data.size(); ++i) d.different += got.data[i] != want.data[i];
  if (d.different == 0) return d;
  const auto g = cast(got, DType::f64), w = cast(want, DType::f64);
  if (!g.ok() || !w.ok()) {
    d.error = 1;  // of whole numbers every bit counts
    d.largest = 0;
    return d;
  }
  for (std::size_t at = 0; at < w->data.size(); at += sizeof(double)) {
    double x = 0, y = 0;
    std::memcpy(&x, g->data.data() + at, sizeof(x));
    std::memcpy(&y, w->data.data() + at, sizeof(y));
    if (!std::isfinite(x) || !std::isfinite(y)) {
      d.same_nonfinite = d.same_nonfinite && ((std::isnan(x) && std::isnan(y)) || x == y);
      continue;
    }
    d.error = std::max(d.error, std::fabs(x - y));
    d.largest = std::max(d.largest, std::fabs(y));
  }
  return d;
}

Expected<bool> check_case(Package& package, const std::string& name, const Case& tensors, bool cpu,
                          double tolerance) {
  const attune_wrapped_package& table = package.table();
  std::vector<Memory> memory;
  std::vector<attune_wrapped_tensor> arguments;
  memory.reserve(table.argument_count);
  for (std::size_t i = 0; i < table.argument_count; ++i) {
    const attune_wrapped_argument& argument = table.arguments[i];
    const auto found = tensors.find(argument.name);
    if (found == tensors.end()) {
      return Status{Code::invalid_argument,
                    fmt::format("{}: the recording has no tensor {}", name, argument.name)};
    }
    const Tensor& tensor = *found->second;
    const bool on_host = cpu || argument.kind == 2;
    auto made = Memory::make(tensor, on_host, argument.kind != 1);
    if (!made.ok()) return made.status();
    memory.push_back(std::move(made).value());
    if (tensor.rank() > ATTUNE_WRAPPED_MAX_RANK) {
      return Status{Code::invalid_argument,
                    fmt::format("{}: {} has {} dimensions", name, argument.name, tensor.rank())};
    }
    arguments.push_back(attune_wrapped_contiguous(memory.back().address(),
                                                  static_cast<int>(tensor.dtype), tensor.rank(),
                                                  tensor.shape.data()));
  }
  if (Status status = package.run(arguments); !status.ok()) return status;
  if (!cpu) {
    if (Status status = cuda::synchronize(0); !status.ok()) return status;
  }
  bool passed = true;
  for (std::size_t i = 0; i < table.argument_count; ++i) {
    const attune_wrapped_argument& argument = table.arguments[i];
    if (argument.kind != 1) continue;
    const Tensor& want = *tensors.at(argument.name);
    Tensor got = want;
    if (Status status = memory[i].read(got, cpu); !status.ok()) return status;
    const auto d = compare(got, want);
    if (!d.ok()) return d.status();
    const double allowed = tolerance > 0 ? tolerance : standard_tolerance(want.dtype);
    const bool ok = d->same_nonfinite && (d->different == 0 || d->error <= allowed * d->largest);
    passed = passed && ok;
    fmt::print("{}  {} {}: {}\n", ok ? "ok  " : "FAIL", name, argument.name,
               d->different == 0 ? std::string("the same bits")
               : !d->same_nonfinite
                   ? std::string("NaN or infinities stand elsewhere")
                   : fmt::format("largest error {:.3g} of values up to {:.3g}, allowed {:.3g}",
                                 d->error, d->largest, allowed * d->largest));
  }
  return passed;
}

}  // namespace

int check_package(const wrap::Program& program, const std::string& folder,
                  const std::string& recording, bool cpu, double tolerance) {
  const auto recorded = read_safetensors(recording);
  if (!recorded.ok()) return refuse(recorded.status());
  if (const Status status = build(folder); !status.ok()) return refuse(status);
  Package package;
  const std::filesystem::path library =
      std::filesystem::absolute(folder) / "build" / fmt::format("lib{}.so", program.name);
  if (const Status status = package.open(library, program.name); !status.ok())
    return refuse(status);
  bool passed = true;
  for (const auto& [name, tensors] : cases_of(*recorded)) {
    const auto ok = check_case(package, name, tensors, cpu, tolerance);
    if (!ok.ok()) return refuse(ok.status());
    passed = passed && *ok;
  }
  return passed ? kOk : kFailed;
}

}  // namespace attune::cli
