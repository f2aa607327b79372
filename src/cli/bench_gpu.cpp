#include "cli/bench_gpu.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <attune/plan.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "cli/bench_json.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/json_file.h"
#include "cli/machine.h"
#include "cli/outputs.h"
#include "cli/random.h"
#include "cli/verdict.h"
#include "cli/work.h"
#include "cubin/toolchain.h"
#include "launch/device.h"
#include "launch/device_tensor.h"
#include "problem/shapes.h"

namespace attune::cli {
namespace {

constexpr std::uint64_t kSeed = 20;

struct Row {
  Problem problem;
  std::string kernel;
  std::size_t workspace_bytes = 0;
  std::size_t runs = 0;
  double seconds = 0;       // by the GPU's clock
  double host_seconds = 0;  // that a call takes of its caller
  double tflops = 0;
  std::optional<double> error_of_limit;
};

// 16,384 tokens and 2,048 numbers a token, in the lengths and head dims of common models.
std::vector<Problem> standard_list(bool quick) {
  std::vector<Problem> problems;
  const auto add = [&](Kind kind, std::int64_t d, bool causal) {
    for (const std::int64_t s : {512, 1024, 2048, 4096, 8192, 16384}) {
      if (quick && s != 1024 && s != 4096) continue;
      Problem problem;
      problem.kind = kind;
      problem.device = Device::cuda;
      problem.dtype = DType::bf16;
      problem.b = 16384 / s;
      problem.hq = problem.hkv = 2048 / d;
      problem.sq = problem.sk = s;
      problem.d = problem.dv = d;
      problem.mask.causal = causal;
      if (kind == Kind::backward) problem.lse = LseLayout::plain;
      problems.push_back(problem);
    }
  };
  for (const Kind kind : {Kind::forward, Kind::backward}) {
    for (const std::int64_t d : {64, 128, 256}) {
      for (const bool causal : {false, true}) add(kind, d, causal);
    }
  }
  return problems;
}

// Tensors on the GPU. Floating-point ones repeat a million normal numbers, which takes a fraction of
// the time that drawing them all would, and keeps the GPU as busy.
class BenchTensors {
 public:
  Status make(const Problem& problem, int device) {
    constexpr std::int64_t kDrawn = 1 << 20;
    for (const TensorSpec& spec : tensors_of(problem)) {
      if (spec.role == Role::unused) continue;
      if (spec.dtype == DType::i32 || spec.dtype == DType::boolean) return copy(problem, device);
    }
    for (const TensorSpec& spec : tensors_of(problem)) {
      if (spec.role == Role::unused) continue;
      TensorView view = row_major_view(spec);
      if (spec.strides != nullptr && *spec.strides != Problem::Strides{}) {
        return copy(problem, device);
      }
      const std::size_t bytes = static_cast<std::size_t>(view.elements()) * size_of(view.dtype);
      auto buffer = cuda::DeviceBuffer::allocate(device, bytes);
      if (!buffer.ok()) return buffer.status();
      if (spec.role == Role::input) {
        const auto drawn = input_tensor(spec, {kDrawn}, kSeed + buffers_.size());
        if (!drawn.ok()) return drawn.status();
        const std::size_t piece = kDrawn * size_of(view.dtype);
        for (std::size_t at = 0; at < bytes; at += piece) {
          Status status = buffer->write(drawn->data.data(), std::min(piece, bytes - at), at);
          if (!status.ok()) return status;
        }
      }
      view.data = buffer->data();
      arguments_.*spec.view = view;
      buffers_.push_back(std::move(buffer).value());
    }
    return {};
  }

  [[nodiscard]] const Arguments& arguments() const {
    return copy_ ? copy_->arguments() : arguments_;
  }

 private:
  // The general way: drawn on the host, copied as they lie.
  Status copy(const Problem& problem, int device) {
    Arguments host;
    const auto inputs = make_inputs(problem, kSeed, host);
    if (!inputs.ok()) return inputs.status();
    Expected<std::vector<Tensor>> results = std::vector<Tensor>();
    if (problem.kind == Kind::backward) {
      results = allocate_outputs(forward_of(problem), false, host);
      if (!results.ok()) return results.status();
    }
    const auto outputs = allocate_outputs(problem, false, host);
    if (!outputs.ok()) return outputs.status();
    auto copied = cuda::DeviceArguments::copy_of(problem, host, device);
    if (!copied.ok()) return copied.status();
    copy_.emplace(std::move(copied).value());
    return {};
  }

  Arguments arguments_;
  std::vector<cuda::DeviceBuffer> buffers_;
  std::optional<cuda::DeviceArguments> copy_;
};

Status time_runs(const Plan& plan, const Arguments& arguments, bool quick, Row& row) {
  const int device = plan.device_index();
  const auto workspace = cuda::DeviceBuffer::allocate(device, plan.workspace_bytes());
  if (!workspace.ok()) return workspace.status();
  const auto watch = cuda::Stopwatch::make(device);
  if (!watch.ok()) return watch.status();
  const auto seconds_of = [&](int calls) -> Expected<double> {
    if (Status status = watch->start(nullptr); !status.ok()) return status;
    for (int n = 0; n < calls; ++n) {
      Status status = plan.run(arguments, {workspace->data(), workspace->size()});
      if (!status.ok()) return status;
    }
    if (Status status = watch->stop(nullptr); !status.ok()) return status;
    const Expected<double> seconds = watch->seconds();
    return seconds.ok() ? Expected<double>(*seconds / calls) : seconds;
  };
  for (const int calls : {1, 3}) {  // the second one is the measure of a turn
    const Expected<double> seconds = seconds_of(calls);
    if (!seconds.ok()) return seconds.status();
    row.seconds = *seconds;
  }
  const double turn = quick ? 0.005 : 0.02;
  const int calls = static_cast<int>(std::clamp(turn / std::max(row.seconds, 1e-7), 1.0, 1000.0));
  std::vector<double> times;
  for (int n = 0; n < (quick ? 5 : 15); ++n) {
    const Expected<double> seconds = seconds_of(calls);
    if (!seconds.ok()) return seconds.status();
    times.push_back(*seconds);
  }
  row.runs = times.size() * static_cast<std::size_t>(calls);
  row.seconds = median(times);

  // The caller's time alone: few enough calls that no queue fills.
  constexpr int kCalls = 50;
  std::vector<double> host;
  for (int n = 0; n < 5; ++n) {
    if (Status status = cuda::synchronize(device); !status.ok()) return status;
    const auto start = std::chrono::steady_clock::now();
    for (int call = 0; call < kCalls; ++call) {
      Status status = plan.run(arguments, {workspace->data(), workspace->size()});
      if (!status.ok()) return status;
    }
    host.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
                   kCalls);
  }
  row.host_seconds = median(host);
  return cuda::synchronize(device);
}

// The error of the same kind of problem, small enough for the oracle.
Expected<double> error_of(Problem problem) {
  constexpr std::int64_t kLongest = 384;
  const std::int64_t group = problem.hq / problem.hkv;
  problem.b = std::min<std::int64_t>(problem.b, 1);
  problem.hkv = 1;
  problem.hq = group;
  problem.sq = std::min(problem.sq, kLongest);
  problem.sk = std::min(problem.sk, kLongest);
  problem.packed_q = problem.packed_k = false;
  problem.total_q = problem.total_k = problem.page_size = problem.pages = 0;
  problem.q_strides = problem.k_strides = problem.v_strides = problem.o_strides = {};
  const auto plan = make_plan(problem);
  if (!plan.ok()) return plan.status();
  Arguments arguments;
  const auto inputs = make_inputs(problem, kSeed, arguments);
  if (!inputs.ok()) return inputs.status();
  Expected<std::vector<Tensor>> forward_outputs = std::vector<Tensor>();
  if (problem.kind == Kind::backward) {
    const auto forward = make_plan(forward_of(problem));
    if (!forward.ok()) return forward.status();
    forward_outputs = allocate_outputs(forward->problem(), false, arguments);
    if (!forward_outputs.ok()) return forward_outputs.status();
    const auto timing = run_timed(*forward, forward_of(arguments), 1);
    if (!timing.ok()) return timing.status();
  }
  const auto outputs = allocate_outputs(problem, false, arguments);
  if (!outputs.ok()) return outputs.status();
  if (const auto timing = run_timed(*plan, arguments, 1); !timing.ok()) return timing.status();
  const auto verdicts = check_results(problem, arguments, 0);
  if (!verdicts.ok()) return verdicts.status();
  return worst_ratio(*verdicts);
}

// (query, key) pairs of the problem at its longest lengths.
double pairs_of(const Problem& problem) {
  Problem dense = problem;
  dense.packed_q = dense.packed_k = dense.key_lengths = false;
  return attended_pairs(dense, {});
}

Expected<Row> measure(const Problem& problem, const GpuBenchOptions& options,
                      std::map<std::string, double>& errors) {
  const auto plan = make_plan(problem);
  if (!plan.ok()) return plan.status();
  if (Status status = plan->prepare(); !status.ok()) return status;
  BenchTensors tensors;
  if (Status status = tensors.make(problem, plan->device_index()); !status.ok()) return status;
  if (problem.kind == Kind::backward) {  // its o and LSE
    const auto forward = make_plan(forward_of(problem));
    if (!forward.ok()) return forward.status();
    if (Status status = forward->run(forward_of(tensors.arguments())); !status.ok()) return status;
  }
  Row row;
  row.problem = plan->problem();
  row.kernel = plan->kernel();
  row.workspace_bytes = plan->workspace_bytes();
  if (Status status = time_runs(*plan, tensors.arguments(), options.quick, row); !status.ok()) {
    return status;
  }
  row.tflops = operations(problem, pairs_of(problem)) / row.seconds * 1e-12;
  if (!options.check) return row;
  const std::string kind = row.kernel + (problem.mask.causal ? " causal" : " full");
  if (errors.count(kind) == 0) {
    const Expected<double> error = error_of(problem);
    if (!error.ok()) return error.status();
    errors[kind] = *error;
  }
  row.error_of_limit = errors[kind];
  return row;
}

nlohmann::json to_json(const Row& row) {
  nlohmann::json json = problem_fields(row.problem);
  json.update({{"kernel", row.kernel},
               {"workspace_bytes", row.workspace_bytes},
               {"runs", row.runs},
               {"median_seconds", row.seconds},
               {"host_seconds", row.host_seconds},
               {"tflops", row.tflops}});
  if (row.error_of_limit) {
    json["error_of_limit"] = *row.error_of_limit;
    json["pass"] = *row.error_of_limit <= 1;
  }
  return json;
}

void print_row(std::FILE* out, const std::array<std::string, 5>& cells,
               const std::string& problem) {
  fmt::print(out, "{:>8}  {:>9}  {:>9}  {:>8}  {:<50}  {}\n", cells[0], cells[1], cells[2],
             cells[3], cells[4], problem);
  std::fflush(out);
}

// The folder of this program, and those around it.
std::vector<std::filesystem::path> folders_around() {
  std::vector<std::filesystem::path> folders;
  std::error_code error;
  std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe", error);
  while (folder.has_relative_path()) {
    folder = folder.parent_path();
    folders.push_back(folder);
  }
  return folders;
}

std::filesystem::path find_around(std::initializer_list<const char*> names) {
  std::error_code error;
  for (const std::filesystem::path& folder : folders_around()) {
    for (const char* name : names) {
      if (std::filesystem::is_regular_file(folder / name, error)) return folder / name;
    }
  }
  return {};
}

}  // namespace

int bench_gpu(const GpuBenchOptions& options) {
  const Expected<int> device = cuda::current_device();
  const auto facts =
      device.ok() ? cuda::facts_of_device(*device) : Expected<DeviceFacts>(device.status());
  if (!facts.ok()) return refuse(facts.status());
  const int driver = (*cuda::driver())->version;
  const auto toolchain = find_toolchain(Compiler::nvrtc);
  nlohmann::json json = {
      {"device", facts->name},
      {"arch", facts->arch},
      {"driver", fmt::format("CUDA {}.{}", driver / 1000, driver % 1000 / 10)},
      {"kernel_compiler", toolchain.ok() ? toolchain->version : "none: bundled kernels"},
      {"compiler", compiler_version()},
      {"version", library_version()},
      {"commit", source_commit()},
      {"rows", nlohmann::json::array()}};
  // With JSON on stdout, the table is for the person who waits.
  std::FILE* out = options.json == "-" ? stderr : stdout;
  fmt::print(out, "{}, driver of {}; Attune {} (commit {}), {}\n", facts->name,
             json["driver"].get<std::string>(), library_version(), source_commit(),
             json["kernel_compiler"].get<std::string>());
  print_row(out, {"TFLOP/s", "median", "host", "of limit", "kernel"}, "problem");
  int code = kOk;
  std::map<std::string, double> errors;
  const std::vector<Problem> problems =
      options.problems.empty() ? standard_list(options.quick) : options.problems;
  for (const Problem& problem : problems) {
    const auto row = measure(problem, options, errors);
    if (!row.ok()) {
      code = kFailed;
      fmt::print(stderr, "attune: {}\n  {}\n", print(problem), row.status().message());
      continue;
    }
    print_row(out,
              {fmt::format("{:.1f}", row->tflops), say_seconds(row->seconds),
               say_seconds(row->host_seconds),
               row->error_of_limit ? fmt::format("{:.2f}{}", *row->error_of_limit,
                                                 *row->error_of_limit <= 1 ? "" : " !")
                                   : "-",
               row->kernel},
              print(row->problem));
    if (row->error_of_limit && *row->error_of_limit > 1) code = kFailed;
    json["rows"].push_back(to_json(*row));
  }
  if (!options.json.empty()) {
    if (const int written = write_json(options.json, json); written != kOk) return written;
  }
  return code;
}

int bench_peers(const std::string& json, const std::string& plot) {
  const std::filesystem::path script =
      find_around({"bench/gpu_peers.py", "share/attune/bench/gpu_peers.py"});
  if (script.empty()) {
    return refuse({Code::io_error,
                   "--peers: bench/gpu_peers.py is in no folder above this program; it lies in "
                   "Attune's source tree"});
  }
  const std::filesystem::path library =
      find_around({"libattune.so", "lib/libattune.so", "src/libattune.so"});
  if (library.empty()) {
    return refuse({Code::io_error, "--peers: libattune.so is not near this program"});
  }
  // Nobody waits for the answer's text; its status says whether PyTorch is there.
  if (std::system("python3 -c 'import torch' >/dev/null 2>&1") != 0) {
    return refuse({Code::unsupported,
                   "--peers: there is no python3 that imports torch here: pip install torch"});
  }
  const std::string lib = library.string(), path = script.string();
  std::vector<const char*> arguments = {"python3", path.c_str(), "--lib", lib.c_str()};
  if (!json.empty() && json != "-") arguments.insert(arguments.end(), {"-o", json.c_str()});
  if (!plot.empty()) arguments.insert(arguments.end(), {"--plot", plot.c_str()});
  arguments.push_back(nullptr);
  std::fflush(nullptr);
  execvp("python3", const_cast<char* const*>(arguments.data()));
  return refuse({Code::io_error, "--peers: python3 does not start"});
}

}  // namespace attune::cli
