#include "wrap/attention_step.h"

#include <attune/kernel/forward_portable_layout.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "host/device_facts.h"
#include "problem/shapes.h"
#include "select/select.h"
#include "wrap/kernel_step.h"

namespace attune::wrap {

namespace {

using Op = Expression::Op;

Status invalid(std::string why) { return {Code::invalid_argument, std::move(why)}; }

bool has_word(std::string_view words, std::string_view key) {
  std::size_t at = 0;
  while ((at = words.find(key, at)) != std::string_view::npos) {
    const std::size_t end = at + key.size();
    const bool begins = at == 0 || words[at - 1] == ' ';
    if (begins && (end == words.size() || words[end] == ' ' || words[end] == '=')) return true;
    at = end;
  }
  return false;
}

// Features that a tensor's presence says.
std::string bias_words(const TensorDeclaration& bias) {
  std::string letters;
  constexpr std::string_view kLetters = "bhqk";
  bool broadcast = false;
  for (std::size_t axis = 0; axis < 4; ++axis) {
    const bool one = is_number(bias.shape[axis], 1);
    broadcast = broadcast || one;
    letters += one ? '1' : kLetters[axis];
  }
  return fmt::format(" bias={}{}", facts(bias.element).name, broadcast ? ":" + letters : "");
}

struct Wanted {
  const char* name;
  std::size_t least_rank, most_rank;
};
constexpr std::array kRanks = {Wanted{"q", 4, 4},
                               Wanted{"k", 4, 4},
                               Wanted{"v", 4, 4},
                               Wanted{"o", 4, 4},
                               Wanted{"lse", 2, 3},
                               Wanted{"bias", 4, 4},
                               Wanted{"alibi_slopes", 1, 2},
                               Wanted{"sink", 1, 1},
                               Wanted{"key_lengths", 1, 1},
                               Wanted{"cu_seqlens_q", 1, 1},
                               Wanted{"cu_seqlens_k", 1, 1},
                               Wanted{"page_table", 2, 2},
                               Wanted{"dropout_state", 1, 1}};

const TensorDeclaration* tensor_of(const Program& program, const AttentionStep& step,
                                   std::string_view name) {
  const auto found = step.tensor(name);
  return found ? &program.tensors[*found] : nullptr;
}

// Largest power of two up to 256 that the addresses of all four are multiples of.
std::int64_t alignment(const Program& program, const AttentionStep& step) {
  std::int64_t least = 256;
  for (const char* name : {"q", "k", "v", "o"}) {
    least = std::min(least, alignment_of(program, *step.tensor(name)));
  }
  return least & -least;
}

// That each row starts at a multiple of 16 bytes and has neighbours, at any sizes.
bool always_aligned(const Program& program, const AttentionStep& step) {
  constexpr std::int64_t kLoad = 16;
  if (alignment(program, step) % kLoad != 0) return false;
  for (const char* name : {"q", "k", "v", "o"}) {
    const TensorDeclaration& tensor = *tensor_of(program, step, name);
    const std::int64_t elements = kLoad / bytes_of(tensor.element);
    if (!is_number(tensor.strides[3], 1)) return false;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (is_number(tensor.shape[axis], 1)) continue;
      const auto range = bounds(tensor.strides[axis],
                                [&](const std::string& size) { return program.range_of(size); });
      if (!range.ok() || range->multiple_of % elements != 0) return false;
    }
  }
  return true;
}

ValueOf sizes_at(const Program& program, std::int64_t typical) {
  return [&program, typical](const std::string& name) -> std::optional<std::int64_t> {
    const auto range = program.range_of(name);
    if (!range) return std::nullopt;
    const std::int64_t value = std::clamp(typical, range->min, range->max);
    return std::clamp(value / range->multiple_of * range->multiple_of, range->min, range->max);
  };
}

constexpr std::int64_t kTypical = 1024;

}  // namespace

Expected<std::string> words_of(const Program& program, const AttentionStep& step) {
  std::string words = step.problem;
  for (const char* kind : {"forward", "backward"}) {
    if (words == kind || words.starts_with(std::string(kind) + " ")) {
      words.erase(0, std::string_view(kind).size() + 1);
    }
  }
  for (const char* key :
       {"b",     "hq",        "hkv",       "sq",        "sk",        "d",     "dv",
        "dtype", "packed",    "total_q",   "total_k",   "page_size", "pages", "bias",
        "alibi", "q_strides", "k_strides", "v_strides", "o_strides", "align", "device"}) {
    if (!has_word(words, key)) continue;
    return invalid(fmt::format("\"problem\" has {}, which the tensors say", key));
  }
  const auto add = [&](const char* tensor, std::string_view word) {
    if (step.tensor(tensor) && !has_word(words, word)) words += fmt::format(" {}", word);
  };
  const bool backward = step.problem.starts_with("backward");
  if (!backward) add("lse", "lse");
  add("sink", "sink");
  add("key_lengths", "key_lengths");
  add("grad_bias", "bias_grad");
  add("grad_sink", "sink_grad");
  add("grad_alibi_slopes", "alibi_grad");
  add("grad_lse", "lse_grad");
  const bool q = step.tensor("cu_seqlens_q").has_value(),
             k = step.tensor("cu_seqlens_k").has_value();
  if (q || k) words += fmt::format(" packed={}{}", q ? "q" : "", k ? "k" : "");
  if (const auto* bias = tensor_of(program, step, "bias")) {
    if (bias->shape.size() != 4) return invalid("bias has to have four dimensions");
    words += bias_words(*bias);
  }
  if (const auto* slopes = tensor_of(program, step, "alibi_slopes")) {
    words += slopes->shape.size() == 1 ? " alibi=head" : " alibi=batch-head";
  }
  while (words.starts_with(' ')) words.erase(0, 1);
  return (backward ? "backward " : "forward ") + words;
}

Expected<Problem> problem_of(const Program& program, const AttentionStep& step, const ValueOf& size,
                             Device device) {
  auto words = words_of(program, step);
  if (!words.ok()) return words.status();
  std::string text = *std::move(words);
  const auto value = [&](const Expression& expression) { return evaluate(expression, size); };
  const TensorDeclaration &q = *tensor_of(program, step, "q"), &k = *tensor_of(program, step, "k");
  const TensorDeclaration& v = *tensor_of(program, step, "v");
  const auto* cu_q = tensor_of(program, step, "cu_seqlens_q");
  const auto* cu_k = tensor_of(program, step, "cu_seqlens_k");
  const auto* pages = tensor_of(program, step, "page_table");
  const bool packed_q = cu_q != nullptr, packed_k = cu_k != nullptr;
  const std::int64_t b = packed_q   ? value(cu_q->shape[0]) - 1
                         : packed_k ? value(cu_k->shape[0]) - 1
                                    : value(q.shape[0]);
  text += fmt::format(" dtype={} b={} hq={} hkv={} d={} dv={}", facts(q.element).name, b,
                      value(q.shape[2]), value(k.shape[2]), value(q.shape[3]), value(v.shape[3]));
  text += fmt::format(" sq={}", packed_q ? value(*step.max_seqlen_q) : value(q.shape[1]));
  text += fmt::format(" sk={}",
                      packed_k || pages != nullptr ? value(*step.max_seqlen_k) : value(k.shape[1]));
  if (packed_q) text += fmt::format(" total_q={}", value(q.shape[1]));
  if (packed_k) text += fmt::format(" total_k={}", value(k.shape[1]));
  if (pages != nullptr) {
    text += fmt::format(" page_size={} pages={}", value(k.shape[1]), value(k.shape[0]));
  }
  for (const char* name : {"q", "k", "v", "o"}) {
    const TensorDeclaration& tensor = *tensor_of(program, step, name);
    if (tensor.contiguous) continue;
    text +=
        fmt::format(" {}_strides={},{},{},{}", name, value(tensor.strides[0]),
                    value(tensor.strides[1]), value(tensor.strides[2]), value(tensor.strides[3]));
  }
  text += fmt::format(" align={} device={}", alignment(program, step),
                      device == Device::cpu ? "cpu" : "cuda");
  return parse(text);
}

Status check_attention(const Program& program, const AttentionStep& step, Device device) {
  for (const auto& [name, index] : step.tensors) {
    const TensorDeclaration& tensor = program.tensors[index];
    for (const Wanted& wanted : kRanks) {
      if (name != wanted.name) continue;
      if (tensor.shape.size() < wanted.least_rank || tensor.shape.size() > wanted.most_rank) {
        return invalid(fmt::format("{} is {}, of {} dimensions; {} of them are expected", name,
                                   tensor.name, tensor.shape.size(), wanted.most_rank));
      }
    }
  }
  const bool longest_q = step.tensor("cu_seqlens_q").has_value();
  const bool longest_k = step.tensor("cu_seqlens_k") || step.tensor("page_table");
  if (longest_q && !step.max_seqlen_q)
    return invalid("max_seqlen_q is missing, the longest length");
  if (longest_k && !step.max_seqlen_k)
    return invalid("max_seqlen_k is missing, the longest length");
  for (const auto& longest : {step.max_seqlen_q, step.max_seqlen_k}) {
    if (!longest) continue;
    const auto range =
        bounds(*longest, [&](const std::string& name) { return program.range_of(name); });
    if (!range.ok()) return range.status();
  }
  for (const std::int64_t typical : {std::int64_t{0}, kTypical, INT64_MAX}) {
    const ValueOf size = sizes_at(program, typical);
    const auto problem = problem_of(program, step, size, device);
    if (!problem.ok()) {
      std::string sizes;
      for (const Size& one : program.sizes) {
        sizes += fmt::format("{}{} = {}", sizes.empty() ? "" : ", ", one.name, *size(one.name));
      }
      return invalid(sizes.empty()
                         ? problem.status().message()
                         : fmt::format("where {}: {}", sizes, problem.status().message()));
    }
    for (const TensorSpec& spec : tensors_of(*problem)) {
      const auto* given = tensor_of(program, step, spec.name);
      if (spec.role == Role::unused) {
        if (given == nullptr || std::string_view(spec.name) == "dropout_state") continue;
        return invalid(fmt::format("{} is given, but {}", spec.name, spec.why_unused));
      }
      if (given == nullptr) {
        if (std::string_view(spec.name) == "dropout_state") continue;
        return invalid(fmt::format("{} {} is missing", spec.name, spec.dims));
      }
      if (!spec.any_float && given->element != static_cast<Element>(spec.dtype)) {
        return invalid(fmt::format("{} is {}, a {}, expected {}", spec.name, given->name,
                                   facts(given->element).name, to_string(spec.dtype)));
      }
      if (given->shape.size() != static_cast<std::size_t>(spec.rank)) {
        return invalid(fmt::format("{} is {}, of {} dimensions; expected {}", spec.name,
                                   given->name, given->shape.size(), spec.dims));
      }
      for (std::size_t axis = 0; axis < given->shape.size(); ++axis) {
        const std::int64_t has = evaluate(given->shape[axis], size);
        if (has == spec.shape[axis]) continue;
        return invalid(fmt::format("{} is {}{}, expected {}: shape[{}] would be {}, expected {}",
                                   spec.name, given->name, shape_text(given->shape), spec.dims,
                                   axis, has, spec.shape[axis]));
      }
    }
  }
  return {};
}

Expected<AttentionChoice> choose_rows(const Program& program, const AttentionStep& step,
                                      const std::vector<int>& archs) {
  const auto fixed = [&](const char* tensor, std::size_t axis) -> Status {
    const Expression& extent = tensor_of(program, step, tensor)->shape[axis];
    if (extent.op == Op::number) return {};
    return invalid(
        fmt::format("{} has {} {}, and the kernel is chosen by it: it has to be a number", tensor,
                    axis == 2 ? "heads" : "a head dim", to_text(extent)));
  };
  for (const auto& [tensor, axis] : {std::pair{"q", 2}, {"k", 2}, {"q", 3}, {"v", 3}}) {
    if (Status status = fixed(tensor, static_cast<std::size_t>(axis)); !status.ok()) return status;
  }
  auto problem = problem_of(program, step, sizes_at(program, kTypical), Device::cuda);
  if (!problem.ok()) return problem.status();
  if (problem->kind != Kind::forward) {
    return Status{Code::unsupported,
                  "only forward attention is wrapped for GPUs; --device cpu computes backward too"};
  }
  const bool packed = problem->packed_q || problem->packed_k;
  if (packed &&
      evaluate(
          tensor_of(program, step, problem->packed_q ? "cu_seqlens_q" : "cu_seqlens_k")->shape[0],
          sizes_at(program, 0)) < 2) {
    return invalid("packed attention needs at least one sequence: declare a \"min\" of it");
  }
  AttentionChoice choice;
  choice.problem = *problem;
  if (archs.empty()) {
    return invalid("no architecture is named that attention is compiled for: say --arch sm_90");
  }
  // Loads of 16 bytes where addresses and strides allow it; else, or where nobody knows, also a row
  // that takes any.
  std::vector<Problem> shapes;
  Problem aligned = *problem;
  aligned.q_strides = aligned.k_strides = aligned.v_strides = aligned.o_strides = {};
  aligned.alignment = 16;
  shapes.push_back(aligned);
  if (!always_aligned(program, step)) {
    aligned.alignment = static_cast<std::int64_t>(size_of(problem->dtype));
    shapes.push_back(aligned);
  }
  Expression tiles(0);
  for (const Problem& shape : shapes) {
    for (const int arch : archs) {
      const auto device = device_of(fmt::format("sm_{}", arch));
      if (!device.ok()) return device.status();
      const auto all = candidates(shape, {}, &*device);
      const auto found = std::find_if(all.begin(), all.end(), [](const Candidate& c) {
        return c.reasons.empty() && c.spec.family == Family::portable;
      });
      if (found == all.end()) {
        return Status{
            Code::unsupported,
            fmt::format("no kernel serves {} on sm_{}: attune explain \"{}\" --arch sm_{} "
                        "says why",
                        print(shape), arch, print(shape), arch)};
      }
      auto row = std::find_if(choice.rows.begin(), choice.rows.end(),
                              [&](const AttentionRow& r) { return r.spec == found->spec; });
      if (row == choice.rows.end()) {
        choice.rows.push_back({found->spec, {}, 0});
        row = choice.rows.end() - 1;
      }
      auto image = image_for(found->spec, arch);
      if (!image.ok()) return image.status();
      const bool known =
          std::any_of(row->images.begin(), row->images.end(),
                      [&](const auto& other) { return other->target == (*image)->target; });
      if (!known) row->images.push_back(*std::move(image));
    }
  }
  // o in float32 where the head dim has no bound.
  choice.workspace_bytes = Expression(0);
  for (const AttentionRow& row : choice.rows) {
    if (row.spec.portable.head_dim != 0) continue;
    const TensorDeclaration& q = *tensor_of(program, step, "q");
    const auto* cu = tensor_of(program, step, "cu_seqlens_q");
    const auto* cu_k = tensor_of(program, step, "cu_seqlens_k");
    const TensorDeclaration* counts = cu != nullptr ? cu : cu_k;
    const Expression b =
        counts == nullptr ? q.shape[0] : combine(Op::subtract, {counts->shape[0], Expression(1)});
    Expression rows = cu != nullptr ? *step.max_seqlen_q : q.shape[1];
    if (problem->lse == LseLayout::padded32) {
      rows =
          combine(Op::multiply, {combine(Op::ceil_divide, {rows, Expression(32)}), Expression(32)});
    }
    const Expression blocks = combine(
        Op::maximum,
        {Expression(1), combine(Op::ceil_divide, {rows, Expression(row.spec.portable.queries)})});
    const std::int64_t floats =
        kernel::wide_accumulator_floats(row.spec.portable, static_cast<int>(problem->dv));
    const Expression bytes = count_of({b, q.shape[2], blocks, Expression(4 * floats)});
    choice.workspace_bytes = is_number(choice.workspace_bytes, 0)
                                 ? bytes
                                 : combine(Op::maximum, {choice.workspace_bytes, bytes});
  }
  return choice;
}

}  // namespace attune::wrap
