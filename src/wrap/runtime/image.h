// Files that belong to the program: compiled kernels and constants.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "wrap/runtime/arithmetic.h"
#include "wrap/runtime/error.h"

namespace attune::wrapped {

// A file beside the program, or in it.
struct Image {
  const char* file;
  std::size_t bytes;
  std::uint64_t hash;
  const char* embedded;  // null: read from the file
};

struct FreeBytes {
  void operator()(char* bytes) const { std::free(bytes); }
};
using FileBytes = std::unique_ptr<char, FreeBytes>;

// FNV-1a, eight bytes at a time: it tells versions and damage apart, and is no signature.
inline std::uint64_t hash_bytes(const char* bytes, std::size_t count) {
  constexpr std::uint64_t kPrime = 1099511628211U;
  std::uint64_t hash = 14695981039346656037U;
  for (; count >= 8; bytes += 8, count -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes, 8);
    hash = (hash ^ word) * kPrime;
  }
  for (; count > 0; ++bytes, --count) hash = (hash ^ static_cast<unsigned char>(*bytes)) * kPrime;
  return hash;
}

// The bytes of an image: where it is embedded, or in `own` after reading its file.
inline int image_bytes(const std::string& folder, const Image& image, FileBytes& own,
                       const char** bytes) {
  *bytes = image.embedded;
  if (image.embedded != nullptr) return ATTUNE_WRAPPED_OK;
  const std::string path = folder + "/" + image.file;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return fail(ATTUNE_WRAPPED_IO_ERROR, "%s can't be opened", path.c_str());
  constexpr std::int64_t kAlignment = 256;
  const std::int64_t room = round_up(static_cast<std::int64_t>(image.bytes) + 1, kAlignment);
  own.reset(static_cast<char*>(std::aligned_alloc(kAlignment, static_cast<std::size_t>(room))));
  const std::size_t read = own == nullptr ? 0 : std::fread(own.get(), 1, image.bytes + 1, file);
  std::fclose(file);
  if (own == nullptr) return fail(ATTUNE_WRAPPED_OUT_OF_MEMORY, "there is no memory");
  if (read != image.bytes || hash_bytes(own.get(), read) != image.hash) {
    return fail(ATTUNE_WRAPPED_IO_ERROR,
                "%s is not the file that the program was wrapped with (of %zu bytes)", path.c_str(),
                image.bytes);
  }
  own.get()[image.bytes] = 0;  // PTX is a text
  *bytes = own.get();
  return ATTUNE_WRAPPED_OK;
}

// The folder of the library or the program that `function` is in.
inline std::string folder_of(const void* function) {
  Dl_info info{};
  if (dladdr(function, &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

}  // namespace attune::wrapped
