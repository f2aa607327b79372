// The step of an attention: parameters on a GPU, a Problem's text and its tensors on the CPU.
#include <attune/kernel/forward_portable_layout.h>
#include <fmt/format.h>

#include <array>

#include "plan/portable_params.h"
#include "wrap/blueprint.h"
#include "wrap/naming.h"

namespace attune::wrap {

namespace {

class AttentionText {
 public:
  AttentionText(const Blueprint& b, std::size_t index)
      : b_(b),
        p_(*b.program),
        index_(index),
        step_(std::get<AttentionStep>(b.program->steps[index].action)) {}

  [[nodiscard]] const TensorDeclaration* tensor(const char* name) const {
    const auto found = step_.tensor(name);
    return found ? &p_.tensors[*found] : nullptr;
  }
  [[nodiscard]] std::string at(const char* name) const {
    return "run.at." + b_.place[*step_.tensor(name)];
  }
  [[nodiscard]] std::string shape(const char* name, std::size_t axis) const {
    return over_sizes(tensor(name)->shape[axis]);
  }
  [[nodiscard]] std::string stride(const char* name, std::size_t axis) const {
    return over_sizes(tensor(name)->strides[axis]);
  }

  [[nodiscard]] std::string head(const std::string& what) const {
    return fmt::format(
        "// Step {0}, {1}: {2}.\n"
        "inline int step_{0}([[maybe_unused]] Run& run) {{\n"
        "  [[maybe_unused]] const Sizes& s = run.size;\n",
        index_, as_comment(p_.steps[index_].name), as_comment(what));
  }

  [[nodiscard]] std::string batch() const {
    for (const char* packed : {"cu_seqlens_q", "cu_seqlens_k"}) {
      if (tensor(packed) == nullptr) continue;
      return over_sizes(
          combine(Expression::Op::subtract, {tensor(packed)->shape[0], Expression(1)}));
    }
    return shape("q", 0);
  }
  [[nodiscard]] std::string longest_q() const {
    return step_.tensor("cu_seqlens_q") ? over_sizes(*step_.max_seqlen_q) : shape("q", 1);
  }
  [[nodiscard]] std::string longest_k() const {
    const bool other = step_.tensor("cu_seqlens_k") || step_.tensor("page_table");
    return other ? over_sizes(*step_.max_seqlen_k) : shape("k", 1);
  }

  std::string device() {
    const AttentionChoice& choice = *b_.attention[index_];
    const Problem& problem = choice.problem;
    const kernel::ForwardParams params = params_of(problem);
    std::string t = rows(choice);
    t += head(print(problem) + ", at these or other sizes");
    t += fmt::format("  if ({} == 0) return ATTUNE_WRAPPED_OK;  // no result has an element\n",
                     nothing_to_write(problem));
    for (const char* name : {"q", "k", "v", "o"}) {
      t += fmt::format("  const std::int64_t {}_shape[] = {};\n", name,
                       list_over_sizes(tensor(name)->shape));
      t += fmt::format("  const std::int64_t {}_strides[] = {};\n", name,
                       list_over_sizes(tensor(name)->strides));
    }
    t += "  kernel::ForwardParams p{};\n";
    for (const char* name : {"q", "k", "v", "o"}) {
      const bool packed = name[0] == 'q' || name[0] == 'o' ? problem.packed_q : problem.packed_k;
      t += fmt::format("  p.{0} = operand({1}, {0}_strides, {2});\n", name, at(name),
                       packed ? "true" : "false");
    }
    const auto set = [&](const char* field, const std::string& value) {
      t += fmt::format("  p.{} = {};\n", field, value);
    };
    const auto set_int = [&](const char* field, const std::string& value) {
      set(field, fmt::format("static_cast<int>({})", value));
    };
    set_int("b", batch());
    set("hq", std::to_string(problem.hq));
    set("hkv", std::to_string(problem.hkv));
    set("group", std::to_string(problem.hq / problem.hkv));
    set_int("sq", longest_q());
    set_int("sk", problem.page_size > 0
                      ? fmt::format("{} == 0 ? 0 : {}", shape("k", 0), longest_k())
                      : longest_k());
    set("d", std::to_string(problem.d));
    set("dv", std::to_string(problem.dv));
    if (problem.packed_q) set_int("total_q", shape("q", 1));
    if (problem.packed_k) set_int("total_k", shape("k", 1));
    set("scale", as_float(static_cast<double>(params.scale)));
    if (params.softcap != 0) set("softcap", as_float(static_cast<double>(params.softcap)));
    set("scale_log2", as_float(static_cast<double>(params.scale_log2)));
    set("mask_low", fmt::format("{}LL", params.mask_low));
    set("mask_high", fmt::format("{}LL", params.mask_high));
    set("bottom_right", std::to_string(params.bottom_right));
    if (problem.page_size > 0) {
      set("page_size", std::to_string(problem.page_size));
      set_int("pages", shape("k", 0));
    }
    optional(problem, params, set, set_int);
    for (const char* name : {"key_lengths", "cu_seqlens_q", "cu_seqlens_k", "page_table"}) {
      if (tensor(name) == nullptr) continue;
      const bool table = tensor(name)->shape.size() == 2;
      set(name, fmt::format("{{reinterpret_cast<const int*>({}), {}, {}}}", at(name),
                            stride(name, 0), table ? stride(name, 1) : "0"));
    }
    if (!b_.attention_scratch[index_].empty()) {
      set("accumulator",
          fmt::format("reinterpret_cast<float*>(run.at.{})", b_.attention_scratch[index_]));
    }
    const std::size_t size = size_of(problem.dtype);
    t += "  const bool aligned =";
    const char* separator = " ";
    for (const char* name : {"q", "k", "v", "o"}) {
      t += fmt::format("{1}starts_aligned(p.{0}, {0}_shape, {2})", name, separator, size);
      separator = " &&\n                       ";
    }
    t += fmt::format(";\n  return launch_attention(run.call, kRows{}, {}, p, aligned, {});\n}}\n",
                     index_, choice.rows.size(), size);
    return t;
  }

  std::string host() {
    const auto words = words_of(p_, step_);
    std::string t = head("attention on the CPU");
    t += "  attune_arguments a{};\n  a.struct_size = sizeof(a);\n";
    for (const auto& [name, index] : step_.tensors) {
      const TensorDeclaration& tensor = p_.tensors[index];
      t += fmt::format("  {{\n    const std::int64_t shape[] = {};\n",
                       list_over_sizes(tensor.shape));
      t += fmt::format("    const std::int64_t strides[] = {};\n", list_over_sizes(tensor.strides));
      t += fmt::format("    a.{} = view_of(run.at.{}, {}, {}, shape, strides);\n  }}\n", name,
                       b_.place[index], facts(tensor.element).constant, tensor.shape.size());
    }
    if (step_.dropout_seed != 0) t += fmt::format("  a.dropout_seed = {}U;\n", step_.dropout_seed);
    if (step_.dropout_offset != 0) {
      t += fmt::format("  a.dropout_offset = {}U;\n", step_.dropout_offset);
    }
    std::string format =
        fmt::format("{} dtype={}", words.ok() ? *words : "", facts(tensor("q")->element).name);
    std::string values;
    const auto add = [&](const char* key, const std::string& value) {
      format += fmt::format(" {}=%\" PRId64 \"", key);
      values += fmt::format(",\n                static_cast<std::int64_t>({})", value);
    };
    add("b", batch());
    add("hq", shape("q", 2));
    add("hkv", shape("k", 2));
    add("sq", longest_q());
    add("sk", longest_k());
    add("d", shape("q", 3));
    add("dv", shape("v", 3));
    if (step_.tensor("cu_seqlens_q")) add("total_q", shape("q", 1));
    if (step_.tensor("cu_seqlens_k")) add("total_k", shape("k", 1));
    if (step_.tensor("page_table")) {
      add("page_size", shape("k", 1));
      add("pages", shape("k", 0));
    }
    t += "  char text[512];\n";
    t += fmt::format(
        "  std::snprintf(text, sizeof(text),\n                \"{} align=1 device=cpu\"{});\n",
        format, values);
    t += "  std::string problem = text;\n";
    for (const char* name : {"q", "k", "v", "o"}) {
      t += fmt::format("  problem += strides_text(\"{0}\", a.{0});\n", name);
    }
    t += "  return run.call.instance->plans.run(problem, a);\n}\n";
    return t;
  }

 private:
  std::string rows(const AttentionChoice& choice) const {
    std::string t = fmt::format(
        "// Kernels of step {0}: id, architectures, shared memory, 16 bytes at a time, queries of "
        "a "
        "tile.\ninline constexpr AttentionRow kRows{0}[] = {{\n",
        index_);
    for (const AttentionRow& row : choice.rows) {
      const ArchRange range = row.spec.archs;
      t += fmt::format("    {{{}, {}, {}, {}, {}, {}, {}}},\n", row.variant,
                       as_literal(id_of(row.spec)), range.begin, range.end,
                       kernel::forward_portable_shared_bytes(row.spec.portable),
                       row.spec.portable.aligned ? "true" : "false", row.spec.portable.queries);
    }
    return t + "};\n\n";
  }

  // Elements of o and of the LSE.
  [[nodiscard]] std::string nothing_to_write(const Problem& problem) const {
    const std::string o = over_sizes(count_of(tensor("o")->shape));
    if (problem.lse == LseLayout::none) return o;
    return fmt::format("most({}, {})", o, over_sizes(count_of(tensor("lse")->shape)));
  }

  template <typename Set, typename SetInt>
  void optional(const Problem& problem, const kernel::ForwardParams& params, const Set& set,
                const SetInt& set_int) const {
    if (problem.bias.kind != BiasKind::none) {
      const auto bias_stride = [&](std::size_t axis, bool broadcast) {
        return broadcast ? std::string("0") : stride("bias", axis);
      };
      set("bias", fmt::format("{{reinterpret_cast<const void*>({}), {}, {}, {}, {},\n"
                              "            kernel::BiasKind::{}, {}}}",
                              at("bias"), bias_stride(0, problem.bias.broadcast_b),
                              bias_stride(1, problem.bias.broadcast_h),
                              bias_stride(2, problem.bias.broadcast_q),
                              bias_stride(3, problem.bias.broadcast_k),
                              problem.bias.kind == BiasKind::boolean ? "boolean" : "additive",
                              params.bias.element));
    }
    if (problem.alibi != PerHead::none) {
      const bool per_batch = problem.alibi == PerHead::batch_head;
      set("alibi", fmt::format("reinterpret_cast<const float*>({})", at("alibi_slopes")));
      if (per_batch) set("alibi_b_stride", stride("alibi_slopes", 0));
      set("alibi_h_stride", stride("alibi_slopes", per_batch ? 1 : 0));
    }
    if (problem.sink) {
      set("sink", fmt::format("reinterpret_cast<const float*>({})", at("sink")));
      set("sink_stride", stride("sink", 0));
    }
    set("dropout.keep_from", fmt::format("{}U", params.dropout.keep_from));
    set("dropout.keep_none", std::to_string(params.dropout.keep_none));
    set("dropout.keep_scale", as_float(static_cast<double>(params.dropout.keep_scale)));
    set("dropout.bytes", std::to_string(params.dropout.bytes));
    set("dropout.keep_to", fmt::format("{}U", params.dropout.keep_to));
    if (problem.dropout > 0) {
      set("dropout.seed", fmt::format("{}U", step_.dropout_seed));
      set("dropout.offset", fmt::format("{}U", step_.dropout_offset));
      if (step_.tensor("dropout_state")) {
        set("dropout.state",
            fmt::format("reinterpret_cast<const kernel::u64*>({})", at("dropout_state")));
      }
    }
    if (problem.lse == LseLayout::none) return;
    const bool packed = params.lse.packed != 0;
    set("lse", fmt::format("{{reinterpret_cast<float*>({}), {}, {}, {}, 0, {}}}", at("lse"),
                           packed ? "0" : stride("lse", 0), stride("lse", packed ? 0 : 1),
                           stride("lse", packed ? 1 : 2), params.lse.packed));
    if (problem.lse == LseLayout::padded32) {
      set_int("lse.padded", fmt::format("round_up({}, 32)", longest_q()));
    }
  }

  const Blueprint& b_;
  const Program& p_;
  std::size_t index_;
  const AttentionStep& step_;
};

}  // namespace

std::string emit_attention_device(const Blueprint& b, std::size_t step) {
  return AttentionText(b, step).device();
}

std::string emit_attention_host(const Blueprint& b, std::size_t step) {
  return AttentionText(b, step).host();
}

}  // namespace attune::wrap
