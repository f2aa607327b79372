#include "problem/shapes.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace attune {
namespace {

using Shape = std::array<std::int64_t, kMaxRank>;

std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Fills the rows one after another, in the order of Arguments.
class Table {
 public:
  explicit Table(const Problem& problem) : p_(problem) {}

  std::array<TensorSpec, kTensorCount> fill() {
    qkv();
    extras();
    lengths();
    results();
    gradients();
    return rows_;
  }

 private:
  struct Layout {
    int rank;
    Shape shape;
    const char* dims;
  };

  TensorSpec& add(const char* name, TensorView Arguments::*view, Role role, const char* why_unused,
                  DType dtype, const Layout& layout) {
    TensorSpec& row = rows_[count_++];
    row.name = name;
    row.view = view;
    row.role = role;
    row.why_unused = why_unused;
    row.dtype = dtype;
    row.rank = layout.rank;
    row.shape = layout.shape;
    row.dims = layout.dims;
    return row;
  }

  // q, o: one row of `width` numbers a query and head.
  [[nodiscard]] Layout query_side(std::int64_t width, bool is_q) const {
    if (p_.packed_q) {
      return {
          4, {1, p_.total_q, p_.hq, width}, is_q ? "[1, total_q, Hq, D]" : "[1, total_q, Hq, Dv]"};
    }
    return {4, {p_.b, p_.sq, p_.hq, width}, is_q ? "[B, Sq, Hq, D]" : "[B, Sq, Hq, Dv]"};
  }

  [[nodiscard]] Layout key_side(std::int64_t width, bool is_k) const {
    if (p_.page_size > 0) {
      return {4,
              {p_.pages, p_.page_size, p_.hkv, width},
              is_k ? "[pages, page_size, Hkv, D]" : "[pages, page_size, Hkv, Dv]"};
    }
    if (p_.packed_k) {
      return {4,
              {1, p_.total_k, p_.hkv, width},
              is_k ? "[1, total_k, Hkv, D]" : "[1, total_k, Hkv, Dv]"};
    }
    return {4, {p_.b, p_.sk, p_.hkv, width}, is_k ? "[B, Sk, Hkv, D]" : "[B, Sk, Hkv, Dv]"};
  }

  [[nodiscard]] Layout bias_layout() const {
    return {4,
            {p_.bias.broadcast_b ? 1 : p_.b, p_.bias.broadcast_h ? 1 : p_.hq,
             p_.bias.broadcast_q ? 1 : p_.sq, p_.bias.broadcast_k ? 1 : p_.sk},
            "[B or 1, Hq or 1, Sq or 1, Sk or 1]"};
  }

  [[nodiscard]] Layout slopes() const {
    if (p_.alibi == PerHead::batch_head) return {2, {p_.b, p_.hq}, "[B, Hq]"};
    return {1, {p_.hq}, "[Hq]"};
  }

  [[nodiscard]] Layout lse_layout() const {
    if (p_.lse == LseLayout::padded32) {
      return {3, {p_.b, p_.hq, round_up(p_.sq, 32)}, "[B, Hq, Sq rounded up to 32]"};
    }
    if (p_.packed_q) return {2, {p_.hq, p_.total_q}, "[Hq, total_q]"};
    return {3, {p_.b, p_.hq, p_.sq}, "[B, Hq, Sq]"};
  }

  void qkv() {
    aligned(add("q", &Arguments::q, Role::input, "", p_.dtype, query_side(p_.d, true))).strides =
        &p_.q_strides;
    aligned(add("k", &Arguments::k, Role::input, "", p_.dtype, key_side(p_.d, true))).strides =
        &p_.k_strides;
    aligned(add("v", &Arguments::v, Role::input, "", p_.dtype, key_side(p_.dv, false))).strides =
        &p_.v_strides;
  }

  void extras() {
    const char* const no_scales = "the problem has no scales (descale)";
    add("q_scale", &Arguments::q_scale, input_if(p_.descale), no_scales, DType::f32,
        {2, {p_.b, p_.hq}, "[B, Hq]"});
    add("k_scale", &Arguments::k_scale, input_if(p_.descale), no_scales, DType::f32,
        {2, {p_.b, p_.hkv}, "[B, Hkv]"});
    add("v_scale", &Arguments::v_scale, input_if(p_.descale), no_scales, DType::f32,
        {2, {p_.b, p_.hkv}, "[B, Hkv]"});
    add("bias", &Arguments::bias, input_if(p_.bias.kind != BiasKind::none),
        "the problem has no bias", p_.bias.dtype, bias_layout());
    add("alibi_slopes", &Arguments::alibi_slopes, input_if(p_.alibi != PerHead::none),
        "the problem has no ALiBi", DType::f32, slopes());
    add("sink", &Arguments::sink, input_if(p_.sink), "the problem has no sink", DType::f32,
        {1, {p_.hq}, "[Hq]"});
  }

  void lengths() {
    add("key_lengths", &Arguments::key_lengths, input_if(p_.key_lengths),
        "the problem has no key lengths", DType::i32, {1, {p_.b}, "[B]"});
    add("cu_seqlens_q", &Arguments::cu_seqlens_q, input_if(p_.packed_q),
        "the problem's queries are not packed", DType::i32, {1, {p_.b + 1}, "[B + 1]"});
    add("cu_seqlens_k", &Arguments::cu_seqlens_k, input_if(p_.packed_k),
        "the problem's keys are not packed", DType::i32, {1, {p_.b + 1}, "[B + 1]"});
    const std::int64_t columns = p_.page_size > 0 ? (p_.sk + p_.page_size - 1) / p_.page_size : 0;
    add("page_table", &Arguments::page_table, input_if(p_.page_size > 0),
        "the problem's keys are not paged", DType::i32,
        {2, {p_.b, columns}, "[B, Sk / page_size rounded up]"});
  }

  void results() {
    const bool backward = p_.kind == Kind::backward;
    const Role result = backward ? Role::input : Role::output;
    aligned(add("o", &Arguments::o, result, "", p_.o_dtype(), query_side(p_.dv, false))).strides =
        &p_.o_strides;
    add("lse", &Arguments::lse, p_.lse == LseLayout::none ? Role::unused : result,
        "the problem has no LSE", DType::f32, lse_layout());
    aligned(add("grad_o", &Arguments::grad_o, input_if(backward), "the problem is a forward one",
                p_.dtype, query_side(p_.dv, false)));
    add("grad_lse", &Arguments::grad_lse, input_if(backward && p_.lse_grad),
        "the problem has no gradient of the LSE", DType::f32, lse_layout());
  }

  void gradients() {
    const bool backward = p_.kind == Kind::backward;
    const char* forward = "the problem is a forward one";
    aligned(add("grad_q", &Arguments::grad_q, output_if(backward), forward, p_.dtype,
                query_side(p_.d, true)));
    aligned(add("grad_k", &Arguments::grad_k, output_if(backward), forward, p_.dtype,
                key_side(p_.d, true)));
    aligned(add("grad_v", &Arguments::grad_v, output_if(backward), forward, p_.dtype,
                key_side(p_.dv, false)));
    add("grad_bias", &Arguments::grad_bias, output_if(backward && p_.bias.grad),
        "the problem asks for no bias gradient", p_.bias.dtype, bias_layout())
        .any_float = true;
    add("grad_sink", &Arguments::grad_sink, output_if(backward && p_.sink_grad),
        "the problem asks for no sink gradient", DType::f32, {1, {p_.hq}, "[Hq]"});
    add("grad_alibi_slopes", &Arguments::grad_alibi_slopes, output_if(backward && p_.alibi_grad),
        "the problem asks for no ALiBi gradient", DType::f32, slopes());
  }

  static TensorSpec& aligned(TensorSpec& row) {
    row.aligned = true;
    return row;
  }

  static Role input_if(bool used) { return used ? Role::input : Role::unused; }
  static Role output_if(bool used) { return used ? Role::output : Role::unused; }

  const Problem& p_;
  std::array<TensorSpec, kTensorCount> rows_{};
  std::size_t count_ = 0;
};

}  // namespace

std::array<TensorSpec, kTensorCount> tensors_of(const Problem& problem) {
  return Table(problem).fill();
}

TensorView row_major_view(const TensorSpec& spec) {
  TensorView view;
  view.dtype = spec.dtype;
  view.rank = spec.rank;
  view.shape = spec.shape;
  view.strides = contiguous_strides(view.shape, view.rank);
  return view;
}

}  // namespace attune
