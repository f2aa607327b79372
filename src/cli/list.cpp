// `attune list`: the table of kernels, and the support matrix made from it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/App.hpp>
#include <algorithm>
#include <array>
#include <attune/kernels.hpp>
#include <attune/problem.hpp>
#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cli/built.h"
#include "cli/command.h"
#include "cli/format.h"
#include "host/isa.h"
#include "select/select.h"
#include "spec/kernel_spec.h"

namespace attune::cli {
namespace {

constexpr std::array kDTypes = {DType::f32, DType::f16, DType::bf16};  // of every feature
constexpr std::array kCpuDTypes = {DType::f32, DType::f16, DType::bf16, DType::f8e4m3};
constexpr std::array kKinds = {Kind::forward, Kind::backward};

struct ListOptions {
  bool json = false;
  bool markdown = false;
  bool built = false;
};

std::string_view word(Kind kind) { return kind == Kind::forward ? "forward" : "backward"; }

// What a row runs on: an instruction set, or architectures of GPUs.
std::string where(const KernelInfo& kernel) {
  if (!kernel.isa.empty()) return kernel.isa;
  if (kernel.arch_end == 0) return fmt::format("sm_{} on", kernel.arch_begin);
  if (kernel.arch_end == kernel.arch_begin + 1)
    return fmt::format("sm_{} alone", kernel.arch_begin);
  return fmt::format("sm_{} to sm_{}", kernel.arch_begin, kernel.arch_end - 1);
}

void print_text() {
  std::vector<std::vector<std::string>> rows = {
      {"id", "family", "kind", "dtype", "runs on", "here"}};
  for (const KernelInfo& kernel : list_kernels()) {
    rows.push_back({kernel.id, kernel.family, std::string(word(kernel.kind)),
                    std::string(to_string(kernel.dtype)), where(kernel),
                    kernel.missing.empty() ? "yes" : "no: " + kernel.missing});
  }
  fmt::print(
      "{}\nIn order of preference: the first kernel that supports a problem is used.\n"
      "`attune explain \"<problem>\"` says which one that is, and why not the others.\n",
      table(rows));
}

void print_json() {
  nlohmann::json json = nlohmann::json::array();
  for (const KernelInfo& kernel : list_kernels()) {
    json.push_back({{"id", kernel.id},
                    {"family", kernel.family},
                    {"kind", word(kernel.kind)},
                    {"dtype", to_string(kernel.dtype)},
                    {"available", kernel.missing.empty()},
                    {"missing", kernel.missing}});
    if (!kernel.isa.empty()) {
      json.back()["isa"] = kernel.isa;
    } else {
      json.back()["arch_begin"] = kernel.arch_begin;
      json.back()["arch_end"] =
          kernel.arch_end == 0 ? nlohmann::json() : nlohmann::json(kernel.arch_end);
    }
  }
  fmt::print("{}\n", json.dump(2));
}

// A feature of the contract: what it is called and a Problem that asks for it.
struct Feature {
  const char* name;
  void (*ask)(Problem&);
};

constexpr std::array kFeatures = {
    Feature{"causal, top-left or bottom-right, any diagonal offset",
            [](Problem& p) {
              p.mask.causal = true;
              p.mask.offset = -3;
            }},
    Feature{"window (left, right), with or without causal",
            [](Problem& p) {
              p.mask.left = 16;
              p.mask.right = 4;
            }},
    Feature{"head dims other than 64 and 128, from 1 to 65,536",
            [](Problem& p) { p.d = p.dv = 65536; }},
    Feature{"Dv unlike D", [](Problem& p) { p.dv = 24; }},
    Feature{"grouped heads (GQA, MQA)",
            [](Problem& p) {
              p.hq = 8;
              p.hkv = 2;
            }},
    Feature{"any strides",
            [](Problem& p) {
              p.q_strides = {1 << 20, 1, 1 << 14, 1 << 7};
            }},
    Feature{"key lengths", [](Problem& p) { p.key_lengths = true; }},
    Feature{"packed sequences (cu_seqlens)",
            [](Problem& p) {
              p.packed_q = p.packed_k = true;
              p.total_q = p.total_k = 100;
            }},
    Feature{"paged K and V",
            [](Problem& p) {
              p.page_size = 16;
              p.pages = 64;
            }},
    Feature{"boolean mask of any broadcast shape",
            [](Problem& p) {
              p.bias.kind = BiasKind::boolean;
              p.bias.dtype = DType::boolean;
              p.bias.broadcast_h = true;
            }},
    Feature{"additive bias of any broadcast shape",
            [](Problem& p) {
              p.bias.kind = BiasKind::additive;
              p.bias.broadcast_b = true;
            }},
    Feature{"gradient of the bias",
            [](Problem& p) {
              p.bias.kind = BiasKind::additive;
              p.bias.grad = true;
            }},
    Feature{"ALiBi", [](Problem& p) { p.alibi = PerHead::head; }},
    Feature{"gradient of the ALiBi slopes",
            [](Problem& p) {
              p.alibi = PerHead::head;
              p.alibi_grad = true;
            }},
    Feature{"sink logits", [](Problem& p) { p.sink = true; }},
    Feature{"gradient of the sinks",
            [](Problem& p) {
              p.sink = true;
              p.sink_grad = true;
            }},
    Feature{"softcap", [](Problem& p) { p.softcap = 30; }},
    Feature{"dropout (Philox4x32-10)", [](Problem& p) { p.dropout = 0.1; }},
    Feature{"dropout of FlashAttention-2's stream (Philox4x32-7)",
            [](Problem& p) {
              p.dropout = 0.1;
              p.dropout_stream = DropoutStream::fa2;
            }},
    Feature{"q, k and v of f8e4m3 with scales, o of bf16",
            [](Problem& p) {
              p.dtype = DType::f8e4m3;
              p.descale = true;
            }},
    Feature{"LSE", [](Problem& p) { p.lse = LseLayout::plain; }},
    Feature{"LSE padded to 32 rows", [](Problem& p) { p.lse = LseLayout::padded32; }},
    Feature{"gradient of the LSE", [](Problem& p) { p.lse_grad = true; }},
    Feature{"deterministic", [](Problem& p) { p.deterministic = true; }},
};

bool is_served(const Problem& problem, const DeviceFacts& device) {
  const std::vector<Candidate> rows = candidates(problem, {}, &device);
  return std::ranges::any_of(rows, [](const Candidate& row) { return row.reasons.empty(); });
}

// Of a feature that is a dtype, which not every GPU has: "yes", "no", or the architectures that do.
std::string support_of_dtype(const Problem& problem) {
  std::set<std::string> archs;
  std::size_t all = 0;
  for (const DeviceFacts& device : known_devices()) {
    if (!is_served(problem, device)) continue;
    archs.insert(fmt::format("sm_{}", device.arch));
    ++all;
  }
  if (all == known_devices().size()) return "yes";
  return archs.empty() ? "no" : fmt::format("{}", fmt::join(archs, ", "));
}

// "all", the dtypes that have it, "no", or nothing to say: a forward pass has no gradients.
std::string support(const Feature& feature, Kind kind, Device device) {
  std::vector<std::string_view> dtypes;
  bool meaningful = false;
  for (const DType dtype : kDTypes) {
    Problem problem;
    problem.kind = kind;
    problem.dtype = dtype;
    problem.b = 2;
    problem.hq = problem.hkv = 4;
    problem.sq = 40;
    problem.sk = 48;
    if (kind == Kind::backward) problem.lse = LseLayout::plain;
    problem.device = device;
    feature.ask(problem);
    if (!validate(problem).ok()) continue;
    meaningful = true;
    if (problem.dtype != dtype) return support_of_dtype(problem);
    // Every GPU is served alike; a test of selection holds that.
    if (is_served(problem, known_devices().back())) dtypes.push_back(to_string(dtype));
  }
  if (!meaningful) return "";
  if (dtypes.size() == kDTypes.size()) return "all";
  return dtypes.empty() ? "no" : fmt::format("{}", fmt::join(dtypes, ", "));
}

// Nothing here depends on the machine: the matrix stands in the README.
void print_markdown() {
  std::vector<std::vector<std::string>> kernels = {{"CPU kernels"}};
  for (const DType dtype : kCpuDTypes) kernels[0].emplace_back(to_string(dtype));
  for (const Isa isa : kAllIsas) {
    std::vector<std::string> row = {std::string(to_string(isa))};
    for (const DType dtype : kCpuDTypes) {
      std::vector<std::string_view> kinds;
      for (const Kind kind : kKinds) {
        for (const KernelSpec& spec : kernel_table()) {
          if (spec == KernelSpec{kind, Family::cpu, dtype, isa, {}, {}})
            kinds.push_back(word(kind));
        }
      }
      row.push_back(kinds.empty() ? "-" : fmt::format("{}", fmt::join(kinds, ", ")));
    }
    kernels.push_back(std::move(row));
  }
  std::vector<std::vector<std::string>> features = {
      {"Feature", "CPU forward", "CPU backward", "GPU forward", "GPU backward"}};
  for (const Feature& feature : kFeatures) {
    features.push_back({feature.name, support(feature, Kind::forward, Device::cpu),
                        support(feature, Kind::backward, Device::cpu),
                        support(feature, Kind::forward, Device::cuda),
                        support(feature, Kind::backward, Device::cuda)});
  }
  fmt::print("{}\n{}", markdown_table(kernels), markdown_table(features));
}

int run(const ListOptions& options) {
  if (options.built) return list_built(options.json);
  if (options.json) {
    print_json();
  } else if (options.markdown) {
    print_markdown();
  } else {
    print_text();
  }
  return kOk;
}

}  // namespace

Command add_list(CLI::App& app) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* sub = app.add_subcommand("list", "Print the table of kernels");
  CLI::Option* json = sub->add_flag("--json", options->json, "Print JSON");
  CLI::Option* markdown =
      sub->add_flag("--markdown", options->markdown, "Print what is supported, as Markdown tables")
          ->excludes(json);
  sub->add_flag("--built", options->built, "Only GPU kernels that are compiled, with their costs")
      ->excludes(markdown);
  sub->footer("Example:\n  attune list --markdown");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
