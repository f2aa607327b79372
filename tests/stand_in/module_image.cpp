#include "tests/stand_in/module_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "cubin/cubin_parameters.h"
#include "wrap/binary_reader.h"

namespace attune::testing {

namespace {

template <typename T>
T read(const char* bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes + at, sizeof(T));
  return value;
}

constexpr std::string_view kElf =
    "\x7f"
    "ELF";

// Nobody tells how long an image is; an ELF file says where its parts end.
std::size_t size_of_elf(const char* bytes) {
  const auto programs = read<std::uint64_t>(bytes, 32), sections = read<std::uint64_t>(bytes, 40);
  std::uint64_t end =
      programs + std::uint64_t{read<std::uint16_t>(bytes, 54)} * read<std::uint16_t>(bytes, 56);
  const std::uint16_t entry = read<std::uint16_t>(bytes, 58),
                      count = read<std::uint16_t>(bytes, 60);
  end = std::max(end, sections + std::uint64_t{entry} * count);
  for (std::uint16_t i = 0; i < count; ++i) {
    const std::size_t section = sections + std::size_t{i} * entry;
    constexpr std::uint32_t kNoBits = 8;
    if (read<std::uint32_t>(bytes, section + 4) == kNoBits) continue;
    end = std::max(
        end, read<std::uint64_t>(bytes, section + 24) + read<std::uint64_t>(bytes, section + 32));
  }
  return end;
}

void read_texts(const char* text, ModuleImage& image) {
  const std::string_view all(text);
  constexpr std::string_view kEntry = ".entry ";
  for (std::size_t at = all.find(kEntry); at != std::string_view::npos; at = all.find(kEntry, at)) {
    at += kEntry.size();
    const std::size_t end = all.find_first_of("( \n", at);
    const std::string name(all.substr(at, end - at));
    const auto entry = wrap::read_ptx(all, name);
    image.valid = image.valid && entry.ok();
    if (entry.ok()) image.parameters[name] = entry->parameter_bytes;
  }
}

void read_cubin(const char* bytes, ModuleImage& image) {
  const std::span<const std::byte> cubin(reinterpret_cast<const std::byte*>(bytes),
                                         size_of_elf(bytes));
  const auto kernels = read_kernels(cubin);
  image.valid = image.valid && kernels.ok();
  if (!kernels.ok()) return;
  for (const std::string_view name : *kernels) {
    auto parameters = read_parameters(cubin, name);
    if (parameters.ok()) image.parameters[std::string(name)] = *parameters;
  }
}

// A header that says its own size and that of all that follows; then, for each architecture, a header with
// both again, and the file.
void read_fatbin(const char* bytes, ModuleImage& image) {
  std::size_t at = read<std::uint16_t>(bytes, 6);
  const std::size_t end = at + read<std::uint64_t>(bytes, 8);
  while (at < end) {
    const std::size_t header = read<std::uint32_t>(bytes, at + 4);
    const char* file = bytes + at + header;
    if (std::memcmp(file, kElf.data(), kElf.size()) == 0) read_cubin(file, image);
    at += header + read<std::uint64_t>(bytes, at + 8);
  }
}

}  // namespace

ModuleImage read_image(const void* data) {
  ModuleImage image;
  const char* bytes = static_cast<const char*>(data);
  constexpr std::uint32_t kFatbin = 0xba55ed50U;
  if (std::memcmp(bytes, kElf.data(), kElf.size()) == 0) {
    read_cubin(bytes, image);
  } else if (std::strncmp(bytes, "//", 2) == 0 || bytes[0] == '.') {
    image.format = "PTX";
    read_texts(bytes, image);
  } else if (read<std::uint32_t>(bytes, 0) == kFatbin) {
    image.format = "fatbin";
    read_fatbin(bytes, image);
  }
  return image;
}

std::string text_of(const std::string& name, const cuda::LaunchConfig& config,
                    const ModuleImage& image, void* const* parameters) {
  std::string text = fmt::format("{} grid {} {} {} block {} {} {} shared {}", name, config.grid_x,
                                 config.grid_y, config.grid_z, config.block_x, config.block_y,
                                 config.block_z, config.shared_bytes);
  for (unsigned i = 0; i < config.attribute_count; ++i) {
    const cuda::LaunchAttribute& attribute = config.attributes[i];
    switch (attribute.id) {
      case cuda::kAttributeCluster:
        text += fmt::format(" cluster {} {} {}", attribute.value.cluster.x,
                            attribute.value.cluster.y, attribute.value.cluster.z);
        break;
      case cuda::kAttributeClusterPolicy:
        text += fmt::format(" policy {}", attribute.value.cluster_policy);
        break;
      case cuda::kAttributeProgrammatic:
        text += fmt::format(" programmatic {}", attribute.value.programmatic);
        break;
      case cuda::kAttributeCooperative:
        text += fmt::format(" cooperative {}", attribute.value.cooperative);
        break;
      default:
        text += fmt::format(" attribute {}", attribute.id);
    }
  }
  const auto found = image.parameters.find(name);
  if (found == image.parameters.end()) return text;
  text += " |";
  for (std::size_t i = 0; i < found->second.size(); ++i) {
    text += ' ';
    const auto* bytes = static_cast<const unsigned char*>(parameters[i]);
    for (std::uint32_t b = 0; b < found->second[i]; ++b) text += fmt::format("{:02x}", bytes[b]);
  }
  return text;
}

}  // namespace attune::testing
