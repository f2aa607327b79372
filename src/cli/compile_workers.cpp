#include "cli/compile_workers.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "registry/obtain.h"
#include "source/translation_unit.h"

namespace attune::cli {
namespace {

// What a worker writes into its pipe: that it takes a job, then each of its results and their bytes.
struct Frame {
  enum Kind : std::uint32_t { taken, compiled, cached, failed } kind;
  std::uint32_t code;  // of a failure
  std::uint64_t job;
  double seconds;
  std::uint64_t bytes;  // that follow: the cubin, or the message
};

bool write_all(int fd, const void* data, std::size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t put = ::write(fd, at, size);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    at += put;
    size -= static_cast<std::size_t>(put);
  }
  return true;
}

bool read_all(int fd, void* data, std::size_t size) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = ::read(fd, at, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool write_result(int fd, std::uint64_t job, const Expected<Obtained>& got) {
  Frame frame{Frame::failed, 0, job, 0, 0};
  const void* data = nullptr;
  if (got.ok()) {
    frame.kind = got->compiled ? Frame::compiled : Frame::cached;
    frame.seconds = got->cubin.seconds;
    frame.bytes = got->cubin.bytes.size();
    data = got->cubin.bytes.data();
  } else {
    frame.code = static_cast<std::uint32_t>(got.status().code());
    frame.bytes = got.status().message().size();
    data = got.status().message().data();
  }
  return write_all(fd, &frame, sizeof(frame)) && write_all(fd, data, frame.bytes);
}

struct Shared {
  std::atomic<std::uint64_t> next{0};
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

[[noreturn]] void work(int fd, Shared& shared, const std::vector<CompileJob>& jobs,
                       const Toolchain& toolchain, DiskCache* cache) {
  for (;;) {
    const std::uint64_t job = shared.next.fetch_add(1);
    if (job >= jobs.size()) ::_exit(0);
    Frame frame{Frame::taken, 0, job, 0, 0};
    if (!write_all(fd, &frame, sizeof(frame))) ::_exit(1);
    const auto all = obtain_for(jobs[job].spec, jobs[job].targets, toolchain, cache);
    for (const Expected<Obtained>& got : all) {
      if (!write_result(fd, job, got)) ::_exit(1);
    }
  }
}

struct Worker {
  pid_t process = 0;
  int fd = -1;
  std::optional<std::uint64_t> job;    // that it has taken and not finished
  std::vector<CompileResult> results;  // of that job, so far
};

std::string end_of(int status) {
  return WIFSIGNALED(status) ? fmt::format("was killed by signal {}", WTERMSIG(status))
                             : fmt::format("ended with status {}", WEXITSTATUS(status));
}

CompileResult result_of(const Frame& frame, std::vector<std::byte> bytes) {
  CompileResult result;
  if (frame.kind == Frame::failed) {
    result.status = {static_cast<Code>(frame.code),
                     std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())};
    return result;
  }
  const auto facts = read_facts(bytes, kEntryName);
  if (!facts.ok()) {
    result.status = facts.status();
    return result;
  }
  result.cubin = {std::move(bytes), *facts, frame.seconds};
  result.compiled = frame.kind == Frame::compiled;
  return result;
}

// Hands over what a job came to; the targets that it did not reach fail with `why`.
void finish(Worker& worker, const std::vector<CompileJob>& jobs, std::vector<bool>& finished,
            const CompileDone& done, const std::string& why) {
  const std::uint64_t job = *std::exchange(worker.job, std::nullopt);
  for (std::size_t i = worker.results.size(); i < jobs[job].targets.size(); ++i) {
    worker.results.push_back(
        {{},
         false,
         {Code::internal,
          fmt::format("{} for {}: the process that compiled it {}", id_of(jobs[job].spec),
                      to_string(jobs[job].targets[i]), why)}});
  }
  finished[job] = true;
  done(job, std::exchange(worker.results, {}));
}

// One frame; false when the worker has ended.
bool take_frame(Worker& worker, const std::vector<CompileJob>& jobs, std::vector<bool>& finished,
                const CompileDone& done) {
  Frame frame{};
  if (!read_all(worker.fd, &frame, sizeof(frame))) return false;
  if (frame.kind == Frame::taken) {
    worker.job = frame.job;
    return true;
  }
  std::vector<std::byte> bytes(frame.bytes);
  if (!read_all(worker.fd, bytes.data(), bytes.size())) return false;
  worker.results.push_back(result_of(frame, std::move(bytes)));
  if (worker.results.size() == jobs[frame.job].targets.size()) {
    finish(worker, jobs, finished, done, "");
  }
  return true;
}

}  // namespace

Status compile_jobs(const std::vector<CompileJob>& jobs, const Toolchain& toolchain,
                    DiskCache* cache, int workers, const CompileDone& done) {
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return {Code::out_of_memory, "no memory to share with the workers"};
  Shared& shared = *new (memory) Shared;
  std::vector<Worker> team;
  for (int i = 0; i < workers; ++i) {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) break;
    const pid_t process = ::fork();
    if (process == 0) {
      ::close(pipe[0]);
      work(pipe[1], shared, jobs, toolchain, cache);
    }
    ::close(pipe[1]);
    if (process < 0) {
      ::close(pipe[0]);
      break;
    }
    team.push_back({process, pipe[0], std::nullopt, {}});
  }
  if (team.empty()) {
    ::munmap(memory, sizeof(Shared));
    return {Code::io_error, "no process can be started: " + std::generic_category().message(errno)};
  }

  std::vector<bool> finished(jobs.size());
  std::string last_end = "ended";
  while (!team.empty()) {
    std::vector<pollfd> waiting;
    waiting.reserve(team.size());
    for (const Worker& worker : team) waiting.push_back({worker.fd, POLLIN, 0});
    if (::poll(waiting.data(), waiting.size(), -1) < 0) continue;  // a signal
    for (std::size_t i = team.size(); i-- > 0;) {
      if (waiting[i].revents == 0 || take_frame(team[i], jobs, finished, done)) continue;
      int status = 0;
      while (::waitpid(team[i].process, &status, 0) < 0 && errno == EINTR) {
      }
      last_end = end_of(status);
      if (team[i].job) finish(team[i], jobs, finished, done, last_end);
      ::close(team[i].fd);
      team.erase(team.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  ::munmap(memory, sizeof(Shared));
  for (std::size_t job = 0; job < jobs.size(); ++job) {
    if (finished[job]) continue;
    Worker nobody;
    nobody.job = job;
    finish(nobody, jobs, finished, done, last_end);
  }
  return {};
}

}  // namespace attune::cli
