#include "tests/support/cubins.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <mutex>
#include <utility>

#include "host/notice.h"
#include "source/translation_unit.h"

namespace attune::testing {

namespace fs = std::filesystem;

KernelSpec first_row() { return nth_row(0); }

KernelSpec nth_row(std::size_t n) {
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family == Family::portable && spec.archs.begin == 80 && n-- == 0) return spec;
  }
  return {};
}

namespace {

template <typename T>
void put(std::vector<std::byte>& bytes, T value) {
  const std::size_t at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

void record(std::vector<std::byte>& bytes, unsigned attribute,
            std::initializer_list<std::uint32_t> words) {
  put<std::uint8_t>(bytes, 4);
  put<std::uint8_t>(bytes, static_cast<std::uint8_t>(attribute));
  put<std::uint16_t>(bytes, static_cast<std::uint16_t>(4 * words.size()));
  for (const std::uint32_t word : words) put(bytes, word);
}

struct Section {
  std::string name;
  std::uint32_t type = 1;
  std::vector<std::byte> data;
  std::uint64_t size = 0;  // of a section without bits
  std::uint32_t link = 0;
};

}  // namespace

std::vector<std::byte> fake_cubin(const FakeKernel& kernel) {
  return fake_cubin_of_several(std::vector{std::pair{std::string(kEntryName), kernel}});
}

std::vector<std::byte> fake_cubin_of_several(
    const std::vector<std::pair<std::string, FakeKernel>>& kernels) {
  std::vector<std::byte> names(1);
  const auto name = [&](std::vector<std::byte>& table, const std::string& text) {
    const auto at = static_cast<std::uint32_t>(table.size());
    const auto bytes = std::as_bytes(std::span(text.c_str(), text.size() + 1));
    table.insert(table.end(), bytes.begin(), bytes.end());
    return at;
  };
  std::vector<std::byte> symbol_names(1);
  std::vector<std::byte> symbols(24);
  std::vector<std::byte> all;
  std::vector<Section> of_kernels;
  of_kernels.reserve(3 * kernels.size());
  for (const auto& [entry, kernel] : kernels) {
    const auto symbol = static_cast<std::uint32_t>(symbols.size() / 24);
    put<std::uint32_t>(symbols, name(symbol_names, entry));
    symbols.resize(24 * (symbol + 1));
    record(all, 0x2f, {symbol, kernel.registers});
    record(all, 0x11, {symbol, kernel.local_bytes});
    record(all, 0x12, {symbol, kernel.local_bytes});
    std::vector<std::byte> own;
    record(own, 0x05, {kernel.max_threads, 1, 1});
    put<std::uint16_t>(own, 0x1903);
    put<std::uint16_t>(own, static_cast<std::uint16_t>(kernel.parameter_bytes));
    std::vector<std::byte> code(kernel.code_bytes);
    unsigned state = kernel.seed;
    for (std::byte& byte : code) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<std::byte>(state >> 24);
    }
    of_kernels.push_back({".nv.info." + entry, 0x70000000, own, 0, 3});
    of_kernels.push_back({".text." + entry, 1, code, 0, 3});
    of_kernels.push_back({".nv.shared." + entry, 8, {}, kernel.shared_bytes, 0});
  }

  std::vector<Section> sections = {{},
                                   {".shstrtab", 3, {}, 0, 0},
                                   {".strtab", 3, symbol_names, 0, 0},
                                   {".symtab", 2, symbols, 0, 2},
                                   {".nv.info", 0x70000000, all, 0, 3}};
  sections.insert(sections.end(), of_kernels.begin(), of_kernels.end());
  std::vector<std::uint32_t> name_offsets;
  for (const Section& section : sections) name_offsets.push_back(name(names, section.name));
  sections[1].data = names;

  std::vector<std::byte> file(64);
  std::vector<std::byte> headers;
  for (std::size_t i = 0; i < sections.size(); ++i) {
    const Section& section = sections[i];
    put<std::uint32_t>(headers, name_offsets[i]);
    put<std::uint32_t>(headers, i == 0 ? 0 : section.type);
    put<std::uint64_t>(headers, 0);
    put<std::uint64_t>(headers, 0);
    put<std::uint64_t>(headers, file.size());
    put<std::uint64_t>(headers, section.type == 8 ? section.size : section.data.size());
    put<std::uint32_t>(headers, section.link);
    put<std::uint32_t>(headers, 0);
    put<std::uint64_t>(headers, 1);
    put<std::uint64_t>(headers, 0);
    file.insert(file.end(), section.data.begin(), section.data.end());
  }
  const std::uint64_t header_offset = file.size();
  file.insert(file.end(), headers.begin(), headers.end());
  const unsigned char magic[] = {0x7f, 'E', 'L', 'F', 2, 1, 1, 41};
  std::memcpy(file.data(), magic, sizeof(magic));
  const auto set = [&](std::size_t at, auto value) {
    std::memcpy(file.data() + at, &value, sizeof(value));
  };
  set(0x12, std::uint16_t{190});
  set(0x28, header_offset);
  set(0x3a, std::uint16_t{64});
  set(0x3c, static_cast<std::uint16_t>(sections.size()));
  set(0x3e, std::uint16_t{1});
  return file;
}

Toolchain fake_toolchain() {
  return {Compiler::nvrtc, "fake 1.0", "", {{75, 0}, {80, 0}, {86, 0}, {89, 0}, {90, 0}}};
}

Registry::Options counting_options(std::atomic<int>& compiled, const fs::path& cache,
                                   std::uint64_t limit_bytes) {
  Registry::Options options;
  if (!cache.empty()) options.cache = std::make_unique<DiskCache>(cache, limit_bytes);
  options.toolchain = [] { return fake_toolchain(); };
  options.compile = [&compiled](const KernelSpec& spec, const Target& target,
                                const Toolchain&) -> Expected<Cubin> {
    ++compiled;
    Cubin cubin;
    cubin.bytes = fake_cubin(
        {.seed = static_cast<unsigned>(target.arch) + static_cast<unsigned>(id_of(spec).size())});
    const auto facts = read_facts(cubin.bytes, kEntryName);
    if (!facts.ok()) return facts.status();
    cubin.facts = *facts;
    return cubin;
  };
  return options;
}

struct Notices::State {
  std::mutex mutex;
  std::vector<std::string> texts;
};

Notices::Notices() : state_(std::make_shared<State>()) {
  set_notice_sink([state = state_](const std::string& text) {
    const std::lock_guard lock(state->mutex);
    state->texts.push_back(text);
  });
}
Notices::~Notices() { set_notice_sink({}); }

std::vector<std::string> Notices::texts() const {
  const std::lock_guard lock(state_->mutex);
  return state_->texts;
}

void flip_byte(const fs::path& file, std::uint64_t offset) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(offset));
  const int byte = stream.get();
  ASSERT_NE(byte, EOF) << file;
  stream.seekp(static_cast<std::streamoff>(offset));
  stream.put(static_cast<char>(byte ^ 0x40));
}

std::vector<fs::path> entries_of(const fs::path& cache) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(cache / "entries", error)) {
    found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

fs::path only_entry(const fs::path& cache) {
  const auto all = entries_of(cache);
  EXPECT_EQ(all.size(), 1U);
  return all.empty() ? fs::path() : all.front();
}

}  // namespace attune::testing
