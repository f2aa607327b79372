#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include "io/no_throw.h"

namespace attune {
namespace {

std::string errno_text(int error) { return std::generic_category().message(error); }

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  [[nodiscard]] int get() const { return fd_; }
  // 0, or the errno of a write that only closing brought to light.
  [[nodiscard]] int close() { return ::close(std::exchange(fd_, -1)) == 0 ? 0 : errno; }

 private:
  int fd_;
};

Status read_fully(int fd, std::uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t got = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {Code::io_error, "cannot be read: " + errno_text(errno)};
    if (got == 0) {
      return {Code::io_error,
              fmt::format("ends at byte {}; it became shorter while it was being read", offset)};
    }
    offset += static_cast<std::uint64_t>(got);
    into = into.subspan(static_cast<std::size_t>(got));
  }
  return {};
}

// 0 or an errno.
int write_fully(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return 0;
}

// A new file beside the one it will replace, removed again unless keep() was called.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& folder) {
    static std::atomic<unsigned> counter{0};
    constexpr int kTries = 1000;  // names left behind by a killed process with our number
    for (int i = 0; i < kTries; ++i) {
      path_ = folder / fmt::format(".attune-{}-{}.tmp", ::getpid(), counter++);
      fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ >= 0 || errno != EEXIST) break;
    }
    error_ = fd_ >= 0 ? 0 : errno;
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (error_ == 0 && !kept_) ::unlink(path_.c_str());
  }

  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  void keep() { kept_ = true; }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int error_ = 0;
  bool kept_ = false;
};

Status replace_file(const std::filesystem::path& path,
                    std::span<const std::span<const std::byte>> parts) {
  std::filesystem::path target = path;
  std::error_code link_error;
  if (std::filesystem::is_symlink(std::filesystem::symlink_status(path, link_error))) {
    target = std::filesystem::canonical(path, link_error);
    if (link_error) {
      return {Code::io_error, "is a symbolic link to nowhere: " + link_error.message()};
    }
  }
  struct stat old {};
  const bool replaces = ::stat(target.c_str(), &old) == 0;
  if (replaces && !S_ISREG(old.st_mode)) {
    return {Code::io_error, S_ISDIR(old.st_mode)
                                ? "cannot be written: it is a folder"
                                : "cannot be replaced: it is a device, pipe or socket"};
  }

  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
  TemporaryFile temporary(folder);
  FileDescriptor file(temporary.fd());
  if (temporary.error() != 0) {
    return {Code::io_error, fmt::format("cannot create a file in the folder {}: {}",
                                        folder.string(), errno_text(temporary.error()))};
  }
  // A private file stays private. Not being allowed to is no reason to fail.
  if (replaces) (void)::fchmod(file.get(), old.st_mode & 0777);
  for (const auto& part : parts) {
    if (const int error = write_fully(file.get(), part)) {
      return {Code::io_error, "cannot be written: " + errno_text(error)};
    }
  }
  if (const int error = file.close()) {
    return {Code::io_error, "cannot be written: " + errno_text(error)};
  }
  if (::rename(temporary.path().c_str(), target.c_str()) != 0) {
    return {Code::io_error, "cannot be replaced: " + errno_text(errno)};
  }
  temporary.keep();
  return {};
}

}  // namespace

ByteSource memory_source(std::span<const std::byte> bytes) {
  return {bytes.size(), [bytes](std::uint64_t offset, std::span<std::byte> into) -> Status {
            if (!into.empty()) std::memcpy(into.data(), bytes.data() + offset, into.size());
            return {};
          }};
}

Expected<ByteSource> file_source(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe must not wait for a writer, it is refused below.
  const auto file =
      std::make_shared<FileDescriptor>(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file->get() < 0) return Status(Code::io_error, "cannot be opened: " + errno_text(errno));
  struct stat info {};
  if (::fstat(file->get(), &info) != 0) {
    return Status(Code::io_error, "cannot be read: " + errno_text(errno));
  }
  if (!S_ISREG(info.st_mode)) {
    return Status(Code::io_error,
                  S_ISDIR(info.st_mode) ? "is a folder, not a file" : "is not a regular file");
  }
  return ByteSource{static_cast<std::uint64_t>(info.st_size),
                    [file](std::uint64_t offset, std::span<std::byte> into) {
                      return read_fully(file->get(), offset, into);
                    }};
}

Status in_file(const std::filesystem::path& path, const Status& status) {
  if (status.ok()) return status;
  return {status.code(), path.string() + ": " + status.message()};
}

Expected<std::vector<std::byte>> read_file(const std::filesystem::path& path, std::uint64_t most) {
  const auto file = file_source(path);
  if (!file.ok()) return in_file(path, file.status());
  if (file->size > most) {
    return in_file(
        path, Status(Code::io_error, fmt::format("has {} bytes, more than {}", file->size, most)));
  }
  std::vector<std::byte> bytes(file->size);
  if (Status status = file->read_at(0, bytes); !status.ok()) return in_file(path, status);
  return bytes;
}

Status write_file(const std::filesystem::path& path,
                  std::span<const std::span<const std::byte>> parts) {
  return no_throw([&] { return in_file(path, replace_file(path, parts)); });
}

}  // namespace attune
