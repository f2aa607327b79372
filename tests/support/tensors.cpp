#include "tests/support/tensors.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>

#include "tests/support/layout.h"
#include "tests/support/on_gpu.h"
#include "tests/support/random_problem.h"
#include "tests/support/scalar.h"

namespace attune::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void fill_normal(TensorMemory& memory, double scale, Random& random) {
  for_each_index(memory.view(), [&](const Index& i) { memory.set(i, scale * random.normal()); });
}

void fill_outliers(TensorMemory& memory, double most, Random& random) {
  for_each_index(memory.view(), [&](const Index& i) {
    const double factor = random.chance(0.002) ? 30.0 + random.uniform() * (most - 30.0) : 1.0;
    memory.set(i, factor * random.normal());
  });
}

// The same row of numbers for every token and head.
void fill_equal_rows(TensorMemory& memory, Random& random) {
  std::vector<double> row(static_cast<std::size_t>(memory.view().shape[3]));
  for (double& value : row) value = random.normal();
  for_each_index(memory.view(),
                 [&](const Index& i) { memory.set(i, row[static_cast<std::size_t>(i[3])]); });
}

// Mostly row-major, else with gaps, as for a slice of something larger.
Shape sparse_strides(const Shape& shape, Random& random) {
  Shape strides(shape.size(), 1);
  const bool gaps = random.chance(0.15);
  std::int64_t span = gaps ? 2 : 1;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = span;
    span = span * std::max<std::int64_t>(shape[axis], 1) + (gaps ? 3 : 0);
  }
  return strides;
}

// Lengths of b sequences, each <= longest and all together <= total: mostly long, some empty. What
// remains of `total` is a gap at the end.
std::vector<std::int64_t> random_split(std::int64_t b, std::int64_t longest, std::int64_t total,
                                       Random& random) {
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(b), 0);
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  random.shuffle(order);
  std::int64_t left = total;
  for (const std::size_t at : order) {
    const std::int64_t most = std::min(longest, left);
    const double kind = random.uniform();
    lengths[at] = kind < 0.15 ? 0 : kind < 0.5 ? most : random.integer(0, most);
    left -= lengths[at];
  }
  return lengths;
}

}  // namespace

std::string_view to_string(Distribution distribution) {
  switch (distribution) {
    case Distribution::normal:
      return "normal";
    case Distribution::outliers:
      return "outliers";
    case Distribution::equal:
      return "equal";
    case Distribution::large:
      return "large";
    case Distribution::masked:
      return "masked";
    case Distribution::poison:
      return "poison";
  }
  return "?";
}

Tensors::Tensors(const Problem& problem, Distribution distribution, std::uint64_t seed)
    : problem_(problem),
      distribution_(distribution),
      random_(seed ^ 0x5DEECE66Du),
      edge_(random_.chance(0.75) ? Edge::back : Edge::front) {
  make_lengths();
  make_pages();
  make_inputs();
  make_bias();
  if (problem_.kind == Kind::backward) {
    make_backward();
  } else {
    output("o", problem_.o_dtype(), shape_of_o(problem_), strides_from(problem_.o_strides),
           &oracle::Result::o);
    if (problem_.lse != LseLayout::none) {
      const Shape shape = shape_of_lse(problem_);
      output("lse", DType::f32, shape, sparse_strides(shape, random_), &oracle::Result::lse);
    }
  }
  if (distribution_ == Distribution::poison) poison_unread();
  for (Named& named : inputs_) named.memory.seal();

  const auto view = [&](std::string_view name) {
    for (const Named& named : inputs_) {
      if (named.name == name) return named.memory.view();
    }
    for (const Named& named : owned_outputs_) {
      if (named.name == name) return named.memory.view();
    }
    return TensorView{};
  };
  Arguments& a = arguments_;
  a.q = view("q");
  a.k = view("k");
  a.v = view("v");
  a.q_scale = view("q_scale");
  a.k_scale = view("k_scale");
  a.v_scale = view("v_scale");
  a.bias = view("bias");
  a.alibi_slopes = view("alibi_slopes");
  a.sink = view("sink");
  a.key_lengths = view("key_lengths");
  a.cu_seqlens_q = view("cu_seqlens_q");
  a.cu_seqlens_k = view("cu_seqlens_k");
  a.page_table = view("page_table");
  a.o = view("o");
  a.lse = view("lse");
  a.grad_o = view("grad_o");
  a.grad_lse = view("grad_lse");
  a.grad_q = view("grad_q");
  a.grad_k = view("grad_k");
  a.grad_v = view("grad_v");
  a.grad_bias = view("grad_bias");
  a.grad_sink = view("grad_sink");
  a.grad_alibi_slopes = view("grad_alibi_slopes");
  if (problem_.dropout > 0) {
    a.dropout_seed = random_.next();
    a.dropout_offset = random_.chance(0.5) ? 4 * random_.integer(0, 1000) : random_.next() >> 8;
  }
}

TensorMemory& Tensors::input(std::string_view name, DType dtype, const Shape& shape,
                             const Shape& strides) {
  inputs_.push_back({name, TensorMemory(dtype, shape, strides, edge_)});
  return inputs_.back().memory;
}

TensorMemory& Tensors::output(std::string_view name, DType dtype, const Shape& shape,
                              const Shape& strides, std::vector<double> oracle::Result::*result) {
  owned_outputs_.push_back({name, TensorMemory(dtype, shape, strides, edge_)});
  outputs_.push_back({name, &owned_outputs_.back().memory, result});
  return owned_outputs_.back().memory;
}

void Tensors::make_lengths() {
  const Problem& p = problem_;
  const auto b = static_cast<std::size_t>(p.b);
  sq_.assign(b, p.sq);
  sk_.assign(b, p.sk);
  q_start_.assign(b, 0);
  k_start_.assign(b, 0);
  const auto pack = [&](std::string_view name, std::int64_t longest, std::int64_t total,
                        std::vector<std::int64_t>& lengths, std::vector<std::int64_t>& starts) {
    lengths = random_split(p.b, longest, total, random_);
    TensorMemory& cumulative =
        input(name, DType::i32, {p.b + 1}, sparse_strides({p.b + 1}, random_));
    std::int64_t end = 0;
    cumulative.set(0, 0);
    for (std::size_t at = 0; at < b; ++at) {
      starts[at] = end;
      end += lengths[at];
      cumulative.set(static_cast<std::int64_t>(at) + 1, static_cast<double>(end));
    }
  };
  if (p.packed_q) pack("cu_seqlens_q", p.sq, p.total_q, sq_, q_start_);
  if (p.packed_k) pack("cu_seqlens_k", p.sk, p.total_k, sk_, k_start_);
  if (!p.key_lengths) return;
  TensorMemory& lengths = input("key_lengths", DType::i32, {p.b}, sparse_strides({p.b}, random_));
  const double none = distribution_ == Distribution::masked ? 0.5 : 0.08;
  for (std::size_t at = 0; at < b; ++at) {
    const double kind = random_.uniform();
    if (kind < none) {
      sk_[at] = 0;
    } else if (kind < 0.9) {
      sk_[at] = random_.integer(0, sk_[at]);
    }
    lengths.set(static_cast<std::int64_t>(at), static_cast<double>(sk_[at]));
  }
}

void Tensors::make_pages() {
  const Problem& p = problem_;
  if (p.page_size == 0) return;
  const std::int64_t columns = (p.sk + p.page_size - 1) / p.page_size;
  table_ =
      &input("page_table", DType::i32, {p.b, columns}, sparse_strides({p.b, columns}, random_));
  std::vector<std::int64_t> pages(static_cast<std::size_t>(p.pages));
  std::iota(pages.begin(), pages.end(), std::int64_t{0});
  random_.shuffle(pages);
  std::size_t used = 0;
  for (std::int64_t b = 0; b < p.b; ++b) {
    const std::int64_t length = sk_[static_cast<std::size_t>(b)];
    for (std::int64_t column = 0; column < columns; ++column) {
      const Index at{b, column, 0, 0};
      if (column * p.page_size >= length) {  // nothing reads this entry
        table_->set(at, random_.pick<double>({-1, 2147483647, -2147483648.0, 0}));
      } else if (used == pages.size() || (b > 0 && used > 0 && random_.chance(0.1))) {
        // Too few pages, or a shared prefix: a page that another sequence has as well.
        const auto shared =
            random_.integer(0, static_cast<std::int64_t>(std::max<std::size_t>(used, 1)) - 1);
        table_->set(at, static_cast<double>(pages[static_cast<std::size_t>(shared)]));
      } else {
        table_->set(at, static_cast<double>(pages[used++]));
      }
    }
  }
}

void Tensors::make_inputs() {
  const Problem& p = problem_;
  q_ = &input("q", p.dtype, shape_of_q(p), strides_from(p.q_strides));
  k_ = &input("k", p.dtype, shape_of_k(p), strides_from(p.k_strides));
  v_ = &input("v", p.dtype, shape_of_v(p), strides_from(p.v_strides));
  switch (distribution_) {
    case Distribution::outliers: {
      const double most = p.dtype == DType::f16 ? 30 : 100;
      fill_outliers(*q_, most, random_);
      fill_outliers(*k_, most, random_);
      fill_outliers(*v_, most, random_);
      break;
    }
    case Distribution::equal:
      fill_equal_rows(*q_, random_);
      fill_equal_rows(*k_, random_);
      fill_normal(*v_, 1, random_);
      break;
    default:
      fill_normal(*q_, distribution_ == Distribution::large ? 30 : 1, random_);
      fill_normal(*k_, 1, random_);
      fill_normal(*v_, 1, random_);
  }
  if (p.descale) {
    const auto scales = [&](std::string_view name, std::int64_t heads) {
      TensorMemory& memory =
          input(name, DType::f32, {p.b, heads}, sparse_strides({p.b, heads}, random_));
      for_each_index(memory.view(),
                     [&](const Index& i) { memory.set(i, std::exp2(4 * random_.uniform() - 2)); });
    };
    scales("q_scale", p.hq);
    scales("k_scale", p.hkv);
    scales("v_scale", p.hkv);
  }
  if (p.alibi != PerHead::none) {
    const Shape shape = shape_of_slopes(p);
    TensorMemory& slopes = input("alibi_slopes", DType::f32, shape, sparse_strides(shape, random_));
    for_each_index(slopes.view(),
                   [&](const Index& i) { slopes.set(i, std::exp2(-8 * random_.uniform())); });
  }
  if (p.sink)
    fill_normal(input("sink", DType::f32, {p.hq}, sparse_strides({p.hq}, random_)), 3, random_);
}

void Tensors::make_bias() {
  const Problem& p = problem_;
  if (p.bias.kind == BiasKind::none) return;
  const Shape shape = shape_of_bias(p);
  Shape strides = strides_for(
      random_.chance(0.7) ? Layout::row_major : random_output_layout(random_), shape, random_);
  if (random_.chance(0.2)) {  // a broadcast extent may have any stride
    for (std::size_t axis = 0; axis < 4; ++axis) {
      if (shape[axis] == 1) strides[axis] = random_.pick<std::int64_t>({0, 1, -7, 1 << 20});
    }
  }
  if (p.bias.aligned) {
    const std::int64_t row = (shape[3] + 7) / 8 * 8 + 8 * random_.integer(0, 2);
    strides = {shape[1] * shape[2] * row, shape[2] * row, row, 1};
  }
  bias_ = &input("bias", p.bias.dtype, shape, strides);
  const bool masked = distribution_ == Distribution::masked;
  const double hole = masked || distribution_ == Distribution::poison ? 0.3 : 0.05;
  bool row_hidden = false;
  for_each_index(bias_->view(), [&](const Index& i) {
    if (i[3] == 0) row_hidden = masked && random_.chance(0.5);
    const bool hidden = row_hidden || random_.chance(hole);
    if (p.bias.kind == BiasKind::boolean) {
      bias_->set(i, hidden || random_.chance(0.2) ? 0 : 1);
    } else {
      bias_->set(i, hidden ? -kInfinity : random_.normal());
    }
  });
}

void Tensors::make_backward() {
  const Problem& p = problem_;
  o_ = &input("o", p.dtype, shape_of_o(p), strides_from(p.o_strides));
  lse_ = &input("lse", DType::f32, shape_of_lse(p), sparse_strides(shape_of_lse(p), random_));
  // Aligned rows of a GPU take gradients only when all of them lie in aligned rows.
  const bool aligned = on_gpu() && random_.chance(0.6);
  const Layout layout = aligned                ? Layout::row_major
                        : random_.chance(0.05) ? Layout::broadcast_all
                        : random_.chance(0.5)  ? Layout::row_major
                                               : random_input_layout(random_);
  grad_o_ = &input("grad_o", p.dtype, shape_of_o(p), strides_for(layout, shape_of_o(p), random_));
  fill_normal(*grad_o_, 1, random_);
  if (p.lse_grad) {
    grad_lse_ =
        &input("grad_lse", DType::f32, shape_of_lse(p), sparse_strides(shape_of_lse(p), random_));
    fill_normal(*grad_lse_, 1, random_);
  }

  const auto gradient = [&](std::string_view name, DType dtype, const Shape& shape,
                            std::vector<double> oracle::Result::*result) {
    const Layout own = aligned || random_.chance(0.5) || shape.size() != 4
                           ? Layout::row_major
                           : random_output_layout(random_);
    const Shape strides =
        shape.size() == 4 ? strides_for(own, shape, random_) : sparse_strides(shape, random_);
    output(name, dtype, shape, strides, result);
  };
  gradient("grad_q", p.dtype, shape_of_q(p), &oracle::Result::grad_q);
  gradient("grad_k", p.dtype, shape_of_k(p), &oracle::Result::grad_k);
  gradient("grad_v", p.dtype, shape_of_v(p), &oracle::Result::grad_v);
  if (p.bias.grad) {
    const DType dtype = random_.pick<DType>({DType::f32, p.bias.dtype});
    gradient("grad_bias", dtype, shape_of_bias(p), &oracle::Result::grad_bias);
  }
  if (p.sink_grad) gradient("grad_sink", DType::f32, {p.hq}, &oracle::Result::grad_sink);
  if (p.alibi_grad) {
    gradient("grad_alibi_slopes", DType::f32, shape_of_slopes(p),
             &oracle::Result::grad_alibi_slopes);
  }
}

void Tensors::set_forward(const oracle::Result& result) {
  const auto copy = [](TensorMemory& memory, const std::vector<double>& values) {
    std::size_t at = 0;
    for_each_index(memory.view(), [&](const Index& i) { memory.set(i, values[at++]); });
  };
  copy(*o_, result.o);
  copy(*lse_, result.lse);
  if (distribution_ == Distribution::poison) {
    poison_rows(*o_, 1);
    poison_rows_of_lse(*lse_);
  }
  o_->seal();
  lse_->seal();
}

void Tensors::edit(std::string_view name, const std::function<double(const Index&)>& value) {
  for (Named& named : inputs_) {
    if (named.name != name) continue;
    for_each_index(named.memory.view(), [&](const Index& i) { named.memory.set(i, value(i)); });
    named.memory.seal();
  }
}

void Tensors::poison_outputs() {
  for (Named& named : owned_outputs_) named.memory.poison();
}

std::string Tensors::damage() const {
  for (const std::deque<Named>* all : {&inputs_, &owned_outputs_}) {
    for (const Named& named : *all) {
      const std::string found = named.memory.damage();
      if (!found.empty()) return std::string(named.name) + ": " + found;
    }
  }
  return {};
}

bool Tensors::outputs_untouched() const {
  const std::vector<std::byte> bytes = output_bytes();
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == kPoison; });
}

std::vector<std::byte> Tensors::output_bytes() const {
  std::vector<std::byte> all;
  for (const Named& named : owned_outputs_) {
    const std::vector<std::byte> bytes = named.memory.element_bytes();
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

}  // namespace attune::testing
