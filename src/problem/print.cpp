// Problem -> text: keys in a fixed order, defaults left out.
#include <fmt/format.h>

#include <array>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace attune {
namespace {

class Printer {
 public:
  // " key=value"; {fmt} writes a double in the shortest form that reads back the same.
  template <typename T>
  void value(std::string_view key, const T& v) {
    fmt::format_to(std::back_inserter(text_), " {}={}", key, v);
  }
  template <typename T>
  void unless(const T& standard, std::string_view key, const T& v) {
    if (v != standard) value(key, v);
  }
  void flag(std::string_view key, bool on) {
    if (on) fmt::format_to(std::back_inserter(text_), " {}", key);
  }
  void strides(std::string_view key, const Problem::Strides& s) {
    if (s == Problem::Strides{}) return;
    fmt::format_to(std::back_inserter(text_), " {}={},{},{},{}", key, s[0], s[1], s[2], s[3]);
  }

  std::string text_;
};

void print_mask(Printer& out, const Mask& mask) {
  const bool top_left = mask.diagonal == Diagonal::top_left;
  if (mask.causal) {
    out.value("mask", top_left ? "causal-top-left" : "causal-bottom-right");
  } else if (top_left) {
    out.value("diagonal", "top-left");
  }
  out.unless<std::int64_t>(0, "offset", mask.offset);
  if (mask.left != -1 || mask.right != -1) {
    out.value("window", fmt::format("{},{}", mask.left, mask.right));
  }
}

void print_bias(Printer& out, const Bias& bias) {
  if (bias.kind == BiasKind::none) return;
  std::string text(to_string(bias.dtype));
  if (bias.broadcast_b || bias.broadcast_h || bias.broadcast_q || bias.broadcast_k) {
    text += ':';
    text += bias.broadcast_b ? '1' : 'b';
    text += bias.broadcast_h ? '1' : 'h';
    text += bias.broadcast_q ? '1' : 'q';
    text += bias.broadcast_k ? '1' : 'k';
  }
  out.value("bias", text);
  out.flag("bias_grad", bias.grad);
  out.flag("bias_aligned", bias.aligned);
}

void print_layout(Printer& out, const Problem& p) {
  out.flag("key_lengths", p.key_lengths);
  if (p.packed_q || p.packed_k) {
    out.value("packed", p.packed_q ? (p.packed_k ? "qk" : "q") : "k");
  }
  if (p.packed_q) out.value("total_q", p.total_q);
  if (p.packed_k) out.value("total_k", p.total_k);
  if (p.page_size > 0) {
    out.value("page_size", p.page_size);
    out.value("pages", p.pages);
  }
}

}  // namespace

std::string print(const Problem& p) {
  Printer out;
  out.text_ = p.kind == Kind::backward ? "backward" : "forward";
  out.value("dtype", to_string(p.dtype));
  out.value("b", p.b);
  out.value("hq", p.hq);
  out.value("hkv", p.hkv);
  out.value("sq", p.sq);
  out.value("sk", p.sk);
  out.value("d", p.d);
  out.unless(p.d, "dv", p.dv);
  if (p.scale) out.value("scale", *p.scale);
  out.flag("descale", p.descale);
  out.unless(0.0, "softcap", p.softcap);
  print_mask(out, p.mask);
  print_bias(out, p.bias);
  if (p.alibi != PerHead::none) {
    out.value("alibi", p.alibi == PerHead::head ? "head" : "batch-head");
  }
  out.flag("alibi_grad", p.alibi_grad);
  out.flag("sink", p.sink);
  out.flag("sink_grad", p.sink_grad);
  out.unless(0.0, "dropout", p.dropout);
  if (p.dropout_stream == DropoutStream::fa2) out.value("dropout_stream", "fa2");
  print_layout(out, p);
  if (p.lse == LseLayout::padded32) {
    out.value("lse", "padded32");
  } else {
    out.flag("lse", p.lse == LseLayout::plain);
  }
  out.flag("lse_grad", p.lse_grad);
  out.flag("deterministic", p.deterministic);
  out.strides("q_strides", p.q_strides);
  out.strides("k_strides", p.k_strides);
  out.strides("v_strides", p.v_strides);
  out.strides("o_strides", p.o_strides);
  out.unless<std::int64_t>(16, "align", p.alignment);
  if (p.device != Device::automatic) out.value("device", p.device == Device::cpu ? "cpu" : "cuda");
  return out.text_;
}

}  // namespace attune
