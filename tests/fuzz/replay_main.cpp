// Runs a fuzz target over every file of its corpus folders, without libFuzzer: so that each input
// that once mattered is part of the ordinary tests, under every compiler and sanitizer.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  std::size_t files = 0;
  for (int a = 1; a < argc; ++a) {
    std::error_code error;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[a], error)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream stream(entry.path(), std::ios::binary);
      const std::vector<char> bytes{std::istreambuf_iterator<char>(stream), {}};
      // A copy of exactly this size, so that AddressSanitizer sees a read past the end.
      const std::vector<std::uint8_t> input(bytes.begin(), bytes.end());
      LLVMFuzzerTestOneInput(input.data(), input.size());
      ++files;
    }
    if (error) {
      std::fprintf(stderr, "%s: %s\n", argv[a], error.message().c_str());
      return 1;
    }
  }
  std::printf("%zu inputs replayed\n", files);
  return files > 0 ? 0 : 1;  // an empty corpus would be a test of nothing
}
