// Runs another program, without a shell in between.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace attune {

struct ProcessResult {
  int status = 0;      // exit status, or 128 + the signal that ended it
  std::string output;  // stdout and stderr together; a mebibyte at most
};

// arguments[0] is a path. Refused when the program cannot be started.
[[nodiscard]] Expected<ProcessResult> run_process(const std::vector<std::string>& arguments);

// The file that a compiler was told to write. Errors are its output alone, or that it wrote none.
[[nodiscard]] Expected<std::vector<std::byte>> run_compiler(
    const std::vector<std::string>& arguments, const std::filesystem::path& output);

// A folder of its own in the system's folder for temporary files, removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  Status status_;
};

}  // namespace attune
