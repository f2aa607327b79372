#include "cli/inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "io/convert.h"
#include "io/tensor_file.h"
#include "problem/strides.h"
#include "problem/text.h"

namespace attune::cli {
namespace {

constexpr std::array<std::string_view, 15> kRoles = {"q",
                                                     "k",
                                                     "v",
                                                     "q_scale",
                                                     "k_scale",
                                                     "v_scale",
                                                     "bias",
                                                     "alibi_slopes",
                                                     "sink",
                                                     "key_lengths",
                                                     "cu_seqlens_q",
                                                     "cu_seqlens_k",
                                                     "page_table",
                                                     "grad_o",
                                                     "grad_lse"};
// Results of an earlier call may lie in the same file; they are no surprise and are not read.
constexpr std::array<std::string_view, 8> kResults = {
    "o", "lse", "grad_q", "grad_k", "grad_v", "grad_bias", "grad_sink", "grad_alibi_slopes"};

template <typename List>
bool contains(const List& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

Status invalid(std::string message) { return {Code::invalid_argument, std::move(message)}; }

bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 ||
         dtype == DType::f8e4m3 || dtype == DType::f64;
}

// "it has layer0.q and layer1.q: choose with --prefix layer0." when names end in ".q" or the like.
std::string prefix_hint(const std::set<std::string>& names) {
  std::set<std::string> prefixes;
  for (const std::string& name : names) {
    if (name.size() > 1 && name.back() == 'q' &&
        (name[name.size() - 2] == '.' || name[name.size() - 2] == '_' ||
         name[name.size() - 2] == '/')) {
      prefixes.insert(name.substr(0, name.size() - 1));
    }
  }
  if (prefixes.empty()) {
    std::vector<std::string> first;
    for (const std::string& name : names) {
      if (first.size() == 8) break;
      first.push_back(attune::quoted(name));
    }
    return names.empty() ? "" : fmt::format("; there is {}", fmt::join(first, ", "));
  }
  return fmt::format("; names there start with {}: choose one with --prefix",
                     fmt::join(prefixes, ", "));
}

// Reads every file and files each tensor under its role.
Status collect(const AttentionOptions& options, Inputs& inputs) {
  std::set<std::string> names;    // as the files have them, for the message when q is missing
  std::vector<std::string> left;  // not read
  for (const std::string& file : options.files) {
    const bool npy = std::filesystem::path(file).extension() == ".npy";
    auto tensors = read_tensors(file);
    if (!tensors.ok()) return tensors.status();
    for (Tensor& tensor : *tensors) {
      names.insert(tensor.name);
      std::string role = tensor.name;
      const bool prefixed = role.compare(0, options.prefix.size(), options.prefix) == 0;
      if (!prefixed && !npy) continue;
      if (prefixed) role.erase(0, options.prefix.size());
      if (!contains(kRoles, role)) {
        if (npy) {
          return invalid(
              fmt::format("{}: the stem of a .npy file says what it holds, and '{}' is "
                          "none of {}",
                          file, role, fmt::join(kRoles, ", ")));
        }
        if (!contains(kResults, role)) left.push_back(attune::quoted(tensor.name));
        continue;
      }
      if (!inputs.tensors.emplace(role, std::move(tensor)).second) {
        return invalid(fmt::format("{}: '{}' is given twice", file, role));
      }
    }
  }
  for (const char* role : {"q", "k", "v"}) {
    if (inputs.tensors.count(role) == 0) {
      return invalid(fmt::format("no tensor '{}{}' in {}{}", options.prefix, role,
                                 fmt::join(options.files, ", "), prefix_hint(names)));
    }
  }
  if (!left.empty()) inputs.notes.push_back(fmt::format("not used: {}", fmt::join(left, ", ")));
  return {};
}

Status cast_to(Tensor& tensor, DType dtype) {
  if (tensor.dtype == dtype) return {};
  auto result = cast(tensor, dtype);
  if (!result.ok()) return result.status();
  tensor = *std::move(result);
  return {};
}

// Lengths and page numbers are int32 in Attune; files often hold int64.
Status narrow_to_i32(Tensor& tensor) {
  if (tensor.dtype == DType::i32) return {};
  if (tensor.dtype != DType::i64) {
    return invalid(
        fmt::format("{} is {}, but has to be i32 or i64", tensor.name, to_string(tensor.dtype)));
  }
  auto narrow = make_tensor(tensor.name, DType::i32, tensor.shape);
  if (!narrow.ok()) return narrow.status();
  for (std::size_t i = 0; i < tensor.data.size() / sizeof(std::int64_t); ++i) {
    std::int64_t wide = 0;
    std::memcpy(&wide, tensor.data.data() + i * sizeof wide, sizeof wide);
    if (wide < std::numeric_limits<std::int32_t>::min() ||
        wide > std::numeric_limits<std::int32_t>::max()) {
      return invalid(fmt::format("{}[{}] = {} is beyond 32 bits", tensor.name, i, wide));
    }
    const auto value = static_cast<std::int32_t>(wide);
    std::memcpy(narrow->data.data() + i * sizeof value, &value, sizeof value);
  }
  tensor = *std::move(narrow);
  return {};
}

// q, k, v and their like: one floating-point dtype, rank 4.
Status settle_main_tensors(const AttentionOptions& options, Inputs& inputs) {
  auto& tensors = inputs.tensors;
  const DType given = tensors.at("q").dtype;
  const DType target = options.dtype.empty() ? given : *float_dtype_from(options.dtype);
  if (!is_float(target) || target == DType::f64) {
    return invalid(
        fmt::format("q is {}; attention is computed in f32, f16, bf16 or f8e4m3: choose one "
                    "with --dtype",
                    to_string(target)));
  }
  inputs.rank_three = tensors.at("q").rank() == 3;
  for (const char* role : {"q", "k", "v", "grad_o"}) {
    const auto found = tensors.find(role);
    if (found == tensors.end()) continue;
    Tensor& tensor = found->second;
    if (tensor.dtype != target && options.dtype.empty()) {
      return invalid(fmt::format("q is {}, but {} is {}: choose one dtype with --dtype",
                                 to_string(given), role, to_string(tensor.dtype)));
    }
    if (const Status status = cast_to(tensor, target); !status.ok()) return status;
    if (tensor.rank() == 3) tensor.shape.insert(tensor.shape.begin(), 1);
    if (tensor.rank() != 4) {
      return invalid(fmt::format("{} has the shape {}; it has to be [B,S,H,D] or [S,H,D]", role,
                                 shape_text(tensor.shape)));
    }
  }
  if (target != given) {
    inputs.notes.push_back(fmt::format("cast from {} to {}", to_string(given), to_string(target)));
  }
  return {};
}

Status settle_side_tensors(Inputs& inputs) {
  for (auto& [role, tensor] : inputs.tensors) {
    tensor.name = role;
    Status status;
    if (role == "alibi_slopes" || role == "sink" || role == "grad_lse" || role == "q_scale" ||
        role == "k_scale" || role == "v_scale") {
      status = cast_to(tensor, DType::f32);
    } else if (role == "key_lengths" || role == "page_table" ||
               role.compare(0, 10, "cu_seqlens") == 0) {
      status = narrow_to_i32(tensor);
    } else if (role == "bias") {
      while (tensor.rank() < 4) tensor.shape.insert(tensor.shape.begin(), 1);
      // A byte per element either way, and what is not 0 is true.
      if (tensor.dtype == DType::u8) {
        tensor.dtype = DType::boolean;
        for (std::byte& value : tensor.data) value = std::byte{value != std::byte{0}};
      } else if (tensor.dtype == DType::f64) {
        status = cast_to(tensor, DType::f32);
      }
    }
    if (!status.ok()) return status;
    if (tensor.rank() > kMaxRank) {
      return invalid(fmt::format("{} has the shape {}; no tensor here has more than {} dimensions",
                                 role, shape_text(tensor.shape), kMaxRank));
    }
  }
  return {};
}

// The longest sequence and the number of sequences that cumulative lengths describe. Whether they
// are increasing is for check() to say.
std::pair<std::int64_t, std::int64_t> longest_and_count(const Tensor& cu_seqlens) {
  const std::size_t count = cu_seqlens.data.size() / sizeof(std::int32_t);
  std::int64_t longest = 0;
  std::int32_t before = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::int32_t value = 0;
    std::memcpy(&value, cu_seqlens.data.data() + i * sizeof value, sizeof value);
    if (i > 0) longest = std::max(longest, std::int64_t{value} - before);
    before = value;
  }
  return {longest, static_cast<std::int64_t>(count) - 1};
}

Status describe_bias(const Tensor& bias, Problem& problem) {
  problem.bias.kind = bias.dtype == DType::boolean ? BiasKind::boolean : BiasKind::additive;
  problem.bias.dtype = bias.dtype;
  problem.bias.broadcast_b = bias.shape[0] == 1 && problem.b != 1;
  problem.bias.broadcast_h = bias.shape[1] == 1 && problem.hq != 1;
  problem.bias.broadcast_q = bias.shape[2] == 1 && problem.sq != 1;
  problem.bias.broadcast_k = bias.shape[3] == 1 && problem.sk != 1;
  // Copies on a GPU start at multiples of 256 bytes.
  problem.bias.aligned =
      problem.bias.kind == BiasKind::additive && row_alignment(bias.view()) >= kMostRowAlignment;
  return {};
}

// Fills inputs.problem and inputs.arguments from the tensors.
Status describe(Inputs& inputs) {
  const auto find = [&](const char* role) -> const Tensor* {
    const auto found = inputs.tensors.find(role);
    return found == inputs.tensors.end() ? nullptr : &found->second;
  };
  Problem& p = inputs.problem;
  Arguments& a = inputs.arguments;
  a.q = logical_view(*find("q"), inputs.bhsd);
  a.k = logical_view(*find("k"), inputs.bhsd);
  a.v = logical_view(*find("v"), inputs.bhsd);
  p.dtype = a.q.dtype;
  p.b = a.q.shape[0];
  p.sq = a.q.shape[1];
  p.hq = a.q.shape[2];
  p.d = a.q.shape[3];
  p.sk = a.k.shape[1];
  p.hkv = a.k.shape[2];
  p.dv = a.v.shape[3];
  if (const Tensor* cu = find("cu_seqlens_q")) {
    p.packed_q = true;
    p.total_q = a.q.shape[1];
    std::tie(p.sq, p.b) = longest_and_count(*cu);
    a.cu_seqlens_q = cu->view();
  }
  if (const Tensor* cu = find("cu_seqlens_k")) {
    p.packed_k = true;
    p.total_k = a.k.shape[1];
    p.sk = longest_and_count(*cu).first;
    a.cu_seqlens_k = cu->view();
  }
  if (const Tensor* pages = find("page_table")) {
    if (pages->rank() != 2) {
      return invalid(fmt::format("page_table has the shape {}; it has to be [B, pages a sequence]",
                                 shape_text(pages->shape)));
    }
    p.pages = a.k.shape[0];
    p.page_size = a.k.shape[1];
    if (p.page_size == 0) return invalid("k holds pages of 0 keys");
    if (pages->shape[1] > std::numeric_limits<std::int64_t>::max() / p.page_size) {
      return invalid(fmt::format("page_table has the shape {}, too large for pages of {} keys",
                                 shape_text(pages->shape), p.page_size));
    }
    p.sk = pages->shape[1] * p.page_size;
    a.page_table = pages->view();
  }
  if (const Tensor* lengths = find("key_lengths")) {
    p.key_lengths = true;
    a.key_lengths = lengths->view();
  }
  for (const auto& [role, view] : {std::pair{"q_scale", &Arguments::q_scale},
                                   {"k_scale", &Arguments::k_scale},
                                   {"v_scale", &Arguments::v_scale}}) {
    const Tensor* scales = find(role);
    if (scales == nullptr) continue;
    p.descale = true;
    a.*view = scales->view();
  }
  if (const Tensor* bias = find("bias")) {
    if (const Status status = describe_bias(*bias, p); !status.ok()) return status;
    a.bias = bias->view();
  }
  if (const Tensor* slopes = find("alibi_slopes")) {
    p.alibi = slopes->rank() == 2 ? PerHead::batch_head : PerHead::head;
    a.alibi_slopes = slopes->view();
  }
  if (const Tensor* sink = find("sink")) {
    p.sink = true;
    a.sink = sink->view();
  }
  if (const Tensor* grad = find("grad_o")) a.grad_o = logical_view(*grad, inputs.bhsd);
  if (const Tensor* grad = find("grad_lse")) a.grad_lse = grad->view();
  if (inputs.bhsd) {
    p.q_strides = a.q.strides;
    p.k_strides = a.k.strides;
    p.v_strides = a.v.strides;
    // o is going to lie in memory as q does, with rows of Dv.
    const std::int64_t rows = a.q.shape[1];
    p.o_strides = contiguous_strides({a.q.shape[0], p.hq, rows, p.dv}, 4);
    std::swap(p.o_strides[1], p.o_strides[2]);
  }
  return {};
}

}  // namespace

TensorView logical_view(const Tensor& tensor, bool bhsd) {
  TensorView view = tensor.view();
  if (bhsd) {
    std::swap(view.shape[1], view.shape[2]);
    std::swap(view.strides[1], view.strides[2]);
  }
  return view;
}

Expected<Inputs> read_inputs(const AttentionOptions& options) {
  Inputs inputs;
  inputs.bhsd = options.layout == "bhsd";
  const auto mask = mask_from(options);
  if (!mask.ok()) return mask.status();
  if (Status status = collect(options, inputs); !status.ok()) return status;
  if (Status status = settle_main_tensors(options, inputs); !status.ok()) return status;
  if (Status status = settle_side_tensors(inputs); !status.ok()) return status;
  if (Status status = describe(inputs); !status.ok()) return status;
  inputs.problem.mask = *mask;
  inputs.problem.scale = options.scale;
  inputs.problem.softcap = options.softcap;
  return inputs;
}

}  // namespace attune::cli
