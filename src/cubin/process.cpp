#include "cubin/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "io/file.h"

extern char** environ;  // NOLINT: POSIX declares it nowhere

namespace attune {

namespace {

constexpr std::size_t kMostOutput = 1 << 20;

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    // What comes after is read too, so that the program does not wait for a reader.
    if (text.size() < kMostOutput) text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

}  // namespace

Expected<ProcessResult> run_process(const std::vector<std::string>& arguments) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) {
    return Status(Code::io_error, "no pipe: " + std::generic_category().message(errno));
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipe[1], STDERR_FILENO);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error =
      ::posix_spawn(&child, arguments.front().c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  if (error != 0) {
    ::close(pipe[0]);
    return Status(Code::io_error, fmt::format("{} cannot be started: {}", arguments.front(),
                                              std::generic_category().message(error)));
  }
  ProcessResult result;
  result.output = read_all(pipe[0]);
  ::close(pipe[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

Expected<std::vector<std::byte>> run_compiler(const std::vector<std::string>& arguments,
                                              const std::filesystem::path& output) {
  const auto result = run_process(arguments);
  if (!result.ok()) return result.status();
  if (result->status != 0) {
    return Status(Code::internal,
                  fmt::format("{}\n(exit status {})", result->output, result->status));
  }
  return read_file(output);
}

TemporaryFolder::TemporaryFolder() {
  std::error_code error;
  std::string name = (std::filesystem::temp_directory_path(error) / "attune-XXXXXX").string();
  if (error || ::mkdtemp(name.data()) == nullptr) {
    status_ = {Code::io_error,
               fmt::format("no folder for temporary files ({}): {}", name,
                           error ? error.message() : std::generic_category().message(errno))};
    return;
  }
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  if (status_.ok()) std::filesystem::remove_all(path_, error);
}

}  // namespace attune
