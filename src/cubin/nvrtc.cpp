#include "cubin/nvrtc.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <system_error>
#include <utility>

#include "cubin/toolkit.h"
#include "host/environment.h"
#include "source/device_headers.h"

namespace attune {

namespace {

namespace fs = std::filesystem;

// Newest first. Both name their architectures and make cubins by themselves.
constexpr std::array kFileNames = {"libnvrtc.so.13", "libnvrtc.so.12"};
constexpr int kOldestMajor = 12;

// Declared here rather than taken from nvrtc.h: the build needs no CUDA.
using Program = struct OpaqueProgram*;
using Result = int;
constexpr Result kSuccess = 0;
constexpr Result kOutOfMemory = 1;

struct Functions {
  Result (*version)(int*, int*) = nullptr;
  Result (*count_targets)(int*) = nullptr;
  Result (*list_targets)(int*) = nullptr;
  Result (*create)(Program*, const char*, const char*, int, const char* const*,
                   const char* const*) = nullptr;
  Result (*destroy)(Program*) = nullptr;
  Result (*compile)(Program, int, const char* const*) = nullptr;
  Result (*cubin_size)(Program, std::size_t*) = nullptr;
  Result (*cubin)(Program, char*) = nullptr;
  Result (*ptx_size)(Program, std::size_t*) = nullptr;
  Result (*ptx)(Program, char*) = nullptr;
  Result (*log_size)(Program, std::size_t*) = nullptr;
  Result (*log)(Program, char*) = nullptr;
  const char* (*error)(Result) = nullptr;
};

template <typename Function>
bool resolve(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  return function != nullptr;
}

bool resolve_all(void* handle, Functions& f) {
  return resolve(handle, "nvrtcVersion", f.version) &&
         resolve(handle, "nvrtcGetNumSupportedArchs", f.count_targets) &&
         resolve(handle, "nvrtcGetSupportedArchs", f.list_targets) &&
         resolve(handle, "nvrtcCreateProgram", f.create) &&
         resolve(handle, "nvrtcDestroyProgram", f.destroy) &&
         resolve(handle, "nvrtcCompileProgram", f.compile) &&
         resolve(handle, "nvrtcGetCUBINSize", f.cubin_size) &&
         resolve(handle, "nvrtcGetCUBIN", f.cubin) &&
         resolve(handle, "nvrtcGetPTXSize", f.ptx_size) && resolve(handle, "nvrtcGetPTX", f.ptx) &&
         resolve(handle, "nvrtcGetProgramLogSize", f.log_size) &&
         resolve(handle, "nvrtcGetProgramLog", f.log) &&
         resolve(handle, "nvrtcGetErrorString", f.error);
}

class Nvrtc {
 public:
  static Nvrtc& instance() {
    // Never destroyed: a thread may still compile while the process ends.
    static Nvrtc& nvrtc = *new Nvrtc;
    return nvrtc;
  }

  [[nodiscard]] const Expected<NvrtcLibrary>& library() const { return library_; }
  [[nodiscard]] const Functions& functions() const { return functions_; }

 private:
  Nvrtc() : library_(find()) {}

  Expected<NvrtcLibrary> find() {
    if (const auto path = environment("ATTUNE_NVRTC")) {
      std::string why;
      if (auto library = open(*path, why)) return *std::move(library);
      return Status(Code::unsupported, fmt::format("ATTUNE_NVRTC names {}: {}", *path, why));
    }
    std::vector<std::string> refused;
    const auto try_one = [&](const std::string& path) -> std::optional<NvrtcLibrary> {
      std::string why;
      auto library = open(path, why);
      if (!library && path.front() == '/') refused.push_back(path + ": " + why);
      return library;
    };
    for (const char* name : kFileNames) {
      if (auto library = try_one(name)) return *std::move(library);
    }
    for (const fs::path& folder : toolkit_library_folders()) {
      for (const char* name : kFileNames) {
        std::error_code error;
        if (!fs::exists(folder / name, error)) continue;
        if (auto library = try_one((folder / name).string())) return *std::move(library);
      }
    }
    return Status(
        Code::unsupported,
        fmt::format("there is no NVRTC ({}) to compile GPU kernels with{}{}. Install it with "
                    "`pip install nvidia-cuda-nvrtc` or with the CUDA toolkit, or name its file in "
                    "ATTUNE_NVRTC",
                    fmt::join(kFileNames, ", "), refused.empty() ? "" : "; refused were ",
                    fmt::join(refused, ", ")));
  }

  std::optional<NvrtcLibrary> open(const std::string& path, std::string& why) {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const char* text = dlerror();
      why = text ? text : "cannot be opened";
      return std::nullopt;
    }
    NvrtcLibrary library{.path = path, .major = 0, .minor = 0, .targets = {}};
    if (!resolve_all(handle, functions_) ||
        functions_.version(&library.major, &library.minor) != kSuccess) {
      why = fmt::format("is no NVRTC of CUDA {} or later", kOldestMajor);
    } else if (library.major < kOldestMajor) {
      why = fmt::format("is NVRTC {}.{}; {}.0 or later is needed", library.major, library.minor,
                        kOldestMajor);
    } else {
      int count = 0;
      if (functions_.count_targets(&count) == kSuccess && count > 0) {
        std::vector<int> targets(static_cast<std::size_t>(count));
        if (functions_.list_targets(targets.data()) == kSuccess) {
          for (const int arch : targets) library.targets.push_back({arch, 0});
        }
      }
      Dl_info info{};
      if (dladdr(reinterpret_cast<const void*>(functions_.version), &info) != 0 && info.dli_fname) {
        library.path = info.dli_fname;
      }
      if (!library.targets.empty()) return library;
      why = "knows no architecture";
    }
    dlclose(handle);
    return std::nullopt;
  }

  Functions functions_;
  Expected<NvrtcLibrary> library_;
};

class ProgramOwner {
 public:
  explicit ProgramOwner(const Functions& functions) : functions_(functions) {}
  ProgramOwner(const ProgramOwner&) = delete;
  ProgramOwner& operator=(const ProgramOwner&) = delete;
  ~ProgramOwner() {
    if (program != nullptr) functions_.destroy(&program);
  }
  Program program = nullptr;

 private:
  const Functions& functions_;
};

std::string log_of(const Functions& f, Program program) {
  std::size_t size = 0;
  if (f.log_size(program, &size) != kSuccess || size <= 1) return {};
  std::string log(size, '\0');
  if (f.log(program, log.data()) != kSuccess) return {};
  log.resize(log.find_last_not_of(std::string_view(" \n\0", 3)) + 1);
  return log;
}

Status refusal(const Functions& f, Result result, const std::string& log) {
  return {result == kOutOfMemory ? Code::out_of_memory : Code::internal,
          log.empty() ? std::string(f.error(result)) : log};
}

}  // namespace

const Expected<NvrtcLibrary>& nvrtc_library() { return Nvrtc::instance().library(); }

Expected<std::vector<std::byte>> nvrtc_compile(const std::string& source,
                                               const std::string& file_name,
                                               const std::vector<std::string>& flags,
                                               NvrtcOutput output) {
  const Functions& f = Nvrtc::instance().functions();
  std::vector<const char*> names;
  std::vector<const char*> texts;
  for (const DeviceHeader& header : headers_of(source)) {
    names.push_back(header.name);
    texts.push_back(header.text);
  }
  ProgramOwner owner(f);
  if (const Result result = f.create(&owner.program, source.c_str(), file_name.c_str(),
                                     static_cast<int>(names.size()), texts.data(), names.data());
      result != kSuccess) {
    return refusal(f, result, {});
  }
  std::vector<const char*> options;
  options.reserve(flags.size());
  for (const std::string& flag : flags) options.push_back(flag.c_str());
  const Result result = f.compile(owner.program, static_cast<int>(options.size()), options.data());
  if (result != kSuccess) return refusal(f, result, log_of(f, owner.program));
  const bool ptx = output == NvrtcOutput::ptx;
  std::size_t size = 0;
  if (const Result got = (ptx ? f.ptx_size : f.cubin_size)(owner.program, &size);
      got != kSuccess || size == 0) {
    return refusal(f, got, "it made no code");
  }
  std::vector<std::byte> code(size);
  if (const Result got =
          (ptx ? f.ptx : f.cubin)(owner.program, reinterpret_cast<char*>(code.data()));
      got != kSuccess) {
    return refusal(f, got, {});
  }
  if (ptx) code.pop_back();  // a 0 ends the text
  return code;
}

}  // namespace attune
