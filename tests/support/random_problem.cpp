#include "tests/support/random_problem.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "tests/support/layout.h"
#include "tests/support/random.h"

namespace attune::testing {
namespace {

using Sizes = std::vector<std::int64_t>;

// Around the tile edges of the kernels (16, 32, 48, 64, 96, 128), and away from them.
const Sizes kTiny{0, 1, 1, 2, 3};
const Sizes kLengths{5, 15, 17, 31, 33, 47, 48, 49, 63, 64, 65, 97, 129, 200};
const Sizes kLong{255, 257, 300, 384, 401};
const Sizes kVeryLong{513, 700, 1025, 1500};
const Sizes kHeadDims{1,  2,  3,  5,  7,  8,  16,  17,  31,  32,  40,  48,  63,
                      64, 64, 65, 72, 80, 96, 100, 128, 129, 160, 192, 256, 300};

std::int64_t random_length(Random& random) {
  const double kind = random.uniform();
  if (kind < 0.20) return random.pick(kTiny);
  if (kind < 0.80) return random.pick(kLengths);
  if (kind < 0.93) return random.pick(kLong);
  return random.pick(kVeryLong);
}

// Scalar multiplications of a forward. Sizes of 0 count as 1, so that the other sizes stay bounded.
double work(const Problem& p) {
  const auto at_least_one = [](std::int64_t size) {
    return static_cast<double>(std::max<std::int64_t>(size, 1));
  };
  return at_least_one(p.b * p.hq) * at_least_one(p.sq) * at_least_one(p.sk) *
         at_least_one(p.d + p.dv);
}

// The largest choice below `value`, or 1.
std::int64_t smaller(const Sizes& choices, std::int64_t value) {
  std::int64_t best = 1;
  for (const std::int64_t choice : choices) {
    if (choice < value) best = std::max(best, choice);
  }
  return best;
}

// Cuts sizes at random until the work fits: counts and lengths sooner than head dims.
void bound_work(Problem& p, double budget, Random& random) {
  Sizes lengths = kLengths;
  lengths.insert(lengths.end(), kLong.begin(), kLong.end());
  lengths.insert(lengths.end(), kVeryLong.begin(), kVeryLong.end());
  while (work(p) > budget) {
    const std::int64_t group = p.hq / p.hkv;
    switch (random.integer(0, 9)) {
      case 0:
      case 1:
        p.b = std::max<std::int64_t>(1, p.b - 1);
        break;
      case 2:
      case 3:
        p.hkv = std::max<std::int64_t>(1, p.hkv - 1);
        p.hq = p.hkv * group;
        break;
      case 4:
      case 5:
        p.hq = p.hkv * (group > 4 ? 4 : std::max<std::int64_t>(1, group - 1));
        break;
      case 6:
        p.sq = smaller(lengths, p.sq);
        break;
      case 7:
        p.sk = smaller(lengths, p.sk);
        break;
      case 8:
        p.d = smaller(kHeadDims, p.d);
        break;
      default:
        p.dv = smaller(kHeadDims, p.dv);
        break;
    }
  }
}

void random_sizes(Problem& p, Random& random) {
  p.b = random.chance(0.02) ? 0 : random.integer(1, 4);
  p.hkv = random.integer(1, 4);
  p.hq = p.hkv * random.pick<std::int64_t>({1, 1, 1, 2, 3, 4, 7});
  p.sq = random_length(random);
  p.sk = random.chance(0.35) ? p.sq : random_length(random);
  p.d = random.pick(kHeadDims);
  p.dv = random.chance(0.6) ? p.d : random.pick(kHeadDims);
  if (random.chance(0.01)) p.dv = 0;
  if (random.chance(0.01)) p.d = 0;
  // The backward oracle costs about three times as much.
  const double budget = random.pick<double>({3e5, 1e6, 3e6, 3e6, 1e7, 1e7, 2e7, 3e7});
  bound_work(p, p.kind == Kind::backward ? budget / 2 : budget, random);
}

void random_mask(Problem& p, Random& random) {
  Mask& mask = p.mask;
  mask.causal = random.chance(0.4);
  if (random.chance(0.35)) {
    if (random.chance(0.75)) mask.left = random.pick<std::int64_t>({0, 1, 2, 7, 16, 33, 64, 100});
    if (random.chance(0.6)) mask.right = random.pick<std::int64_t>({0, 1, 3, 8, 17, 40, 90});
  }
  if (random.chance(0.03)) mask.left = std::numeric_limits<std::int64_t>::max();
  if (random.chance(0.03)) mask.right = std::numeric_limits<std::int64_t>::max();
  const bool diagonal = mask.causal || mask.left >= 0 || mask.right >= 0;
  if (!diagonal) return;
  if (random.chance(0.5)) mask.diagonal = Diagonal::top_left;
  if (random.chance(0.4)) {
    mask.offset = random.integer(-80, 80);
  } else if (random.chance(0.08)) {  // every row sees all keys, or none
    mask.offset =
        random.pick<std::int64_t>({-5000, 5000, -(std::int64_t{1} << 31), std::int64_t{1} << 33,
                                   -(std::int64_t{1} << 62), std::int64_t{1} << 62});
  }
}

void random_scores(Problem& p, Random& random) {
  const double scale = random.uniform();
  if (scale < 0.05) {
    p.scale = 0.0;
  } else if (scale < 0.15) {
    p.scale = -0.3;
  } else if (scale < 0.30) {
    p.scale = random.pick<double>({0.01, 0.125, 1.0, 1.5});
  }
  if (p.d == 0 && !p.scale) p.scale = 1.0;
  if (random.chance(0.2)) p.softcap = random.pick<double>({1.0, 15.0, 50.0});

  const bool backward = p.kind == Kind::backward;
  const double bias = random.uniform();
  if (bias < 0.40) {
    p.bias.kind = bias < 0.15 ? BiasKind::boolean : BiasKind::additive;
    p.bias.dtype = p.bias.kind == BiasKind::boolean
                       ? DType::boolean
                       : random.pick<DType>({DType::f32, DType::f16, DType::bf16});
    p.bias.broadcast_b = random.chance(0.4);
    p.bias.broadcast_h = random.chance(0.4);
    p.bias.broadcast_q = random.chance(0.25);
    p.bias.broadcast_k = random.chance(0.2);
    p.bias.aligned = p.bias.kind == BiasKind::additive && random.chance(0.5);
    p.bias.grad = backward && p.bias.kind == BiasKind::additive && random.chance(0.7);
  }
  if (random.chance(0.2)) {
    p.alibi = random.chance(0.5) ? PerHead::head : PerHead::batch_head;
    p.alibi_grad = backward && random.chance(0.6);
  }
  if (random.chance(0.2)) {
    p.sink = true;
    p.sink_grad = backward && random.chance(0.7);
  }
  if (random.chance(0.2)) p.dropout = random.pick<double>({0.1, 0.5, 0.9});
}

void random_sequences(Problem& p, Random& random) {
  const double kind = random.uniform();
  if (kind < 0.25) {
    p.packed_q = random.chance(0.8);
    p.packed_k = !p.packed_q || random.chance(0.7);
  } else if (kind < 0.40) {
    p.page_size = random.pick<std::int64_t>({1, 3, 16, 48, 64, 256});
    const std::int64_t needed = p.b * ((p.sk + p.page_size - 1) / p.page_size);
    p.pages = std::max<std::int64_t>(1, needed + random.integer(-1, 3));
    p.packed_q = random.chance(0.3);
  }
  if (p.packed_q)
    p.total_q = random.integer((p.b * p.sq + 1) / 2, p.b * p.sq) + random.integer(0, 5);
  if (p.packed_k)
    p.total_k = random.integer((p.b * p.sk + 1) / 2, p.b * p.sk) + random.integer(0, 5);
  p.key_lengths = random.chance(p.page_size > 0 ? 0.7 : 0.2);
}

Problem::Strides to_strides(const Shape& strides) {
  return {strides[0], strides[1], strides[2], strides[3]};
}

void random_strides(Problem& p, Random& random) {
  if (!random.chance(0.4)) return;
  const bool one_layout = random.chance(0.3);  // q, k, v and o alike, as callers mostly have it
  const Layout shared = random_output_layout(random);
  const auto input = [&](const Shape& shape) {
    const Layout layout = one_layout ? shared : random_input_layout(random);
    return to_strides(strides_for(layout, shape, random));
  };
  if (one_layout || random.chance(0.6)) p.q_strides = input(shape_of_q(p));
  if (one_layout || random.chance(0.6)) p.k_strides = input(shape_of_k(p));
  if (one_layout || random.chance(0.6)) p.v_strides = input(shape_of_v(p));
  if (one_layout || random.chance(0.6)) {
    const Layout layout = one_layout ? shared : random_output_layout(random);
    p.o_strides = to_strides(strides_for(layout, shape_of_o(p), random));
  }
}

}  // namespace

Problem random_problem(std::uint64_t seed, std::optional<Kind> kind) {
  Random random(seed);
  Problem p;
  p.device = Device::cpu;
  p.kind = random.chance(0.5) ? Kind::forward : Kind::backward;
  if (kind) p.kind = *kind;
  p.dtype = random.pick<DType>({DType::f32, DType::f16, DType::bf16});
  random_sizes(p, random);
  random_mask(p, random);
  random_scores(p, random);
  random_sequences(p, random);
  if (p.kind == Kind::forward) {
    p.lse = random.pick<LseLayout>({LseLayout::none, LseLayout::plain, LseLayout::padded32});
  } else {
    p.lse = random.chance(0.7) ? LseLayout::plain : LseLayout::padded32;
    p.lse_grad = random.chance(0.3);
  }
  p.deterministic = random.chance(0.3);
  random_strides(p, random);
  // From numbers of its own, so that no other seed's Problem depends on how many of these there are.
  Random eighths(seed ^ 0xF8E4A3u);
  if (p.kind == Kind::forward && eighths.chance(0.25)) {
    p.dtype = DType::f8e4m3;
    p.descale = eighths.chance(0.6);
  }
  Random streams(seed ^ 0xFA2u);
  if (p.dropout > 0 && streams.chance(0.5)) p.dropout_stream = DropoutStream::fa2;
  return p;
}

Problem plainer(Problem p, std::uint64_t seed) {
  enum Keeps : std::uint64_t {
    bias = 0,
    dropout = 1,
    general = 2,
    pages = 3
  };  // or, mostly, nothing
  const std::uint64_t keeps = seed % 8;
  if (keeps != bias) {
    p.bias = {};
  } else if (seed / 8 % 2 == 0) {  // as rows that copy it take it
    p.bias.kind = BiasKind::additive;
    p.bias.dtype = p.o_dtype();
    p.bias.broadcast_q = p.bias.broadcast_k = false;
    p.bias.aligned = true;
  }
  if (keeps != dropout) {
    p.dropout = 0;
    p.dropout_stream = DropoutStream::curand;
  } else if (p.dropout == 0) {  // few have it
    p.dropout = 0.5;
    p.dropout_stream = seed / 8 % 2 == 0 ? DropoutStream::fa2 : DropoutStream::curand;
  }
  if (keeps != general) {
    p.softcap = 0;
    p.alibi = PerHead::none;
    p.alibi_grad = false;
    if (p.scale && *p.scale <= 0) p.scale = 0.3;
  }
  if (keeps != pages) p.page_size = p.pages = 0;
  // So many elements of any dtype are whole 16 bytes.
  constexpr std::int64_t kMostHeadDim = 256;
  const std::int64_t whole = p.dtype == DType::f8e4m3 ? 16 : 8;
  p.d = std::min((p.d + whole - 1) / whole * whole, kMostHeadDim);
  p.dv = std::min((p.dv + whole - 1) / whole * whole, kMostHeadDim);
  p.q_strides = p.k_strides = p.v_strides = p.o_strides = {};
  return p;
}

Shape shape_of_q(const Problem& p) {
  return p.packed_q ? Shape{1, p.total_q, p.hq, p.d} : Shape{p.b, p.sq, p.hq, p.d};
}

Shape shape_of_k(const Problem& p) {
  if (p.page_size > 0) return {p.pages, p.page_size, p.hkv, p.d};
  return p.packed_k ? Shape{1, p.total_k, p.hkv, p.d} : Shape{p.b, p.sk, p.hkv, p.d};
}

Shape shape_of_v(const Problem& p) {
  Shape shape = shape_of_k(p);
  shape[3] = p.dv;
  return shape;
}

Shape shape_of_o(const Problem& p) {
  Shape shape = shape_of_q(p);
  shape[3] = p.dv;
  return shape;
}

Shape shape_of_bias(const Problem& p) {
  return {p.bias.broadcast_b ? 1 : p.b, p.bias.broadcast_h ? 1 : p.hq,
          p.bias.broadcast_q ? 1 : p.sq, p.bias.broadcast_k ? 1 : p.sk};
}

Shape shape_of_slopes(const Problem& p) {
  return p.alibi == PerHead::batch_head ? Shape{p.b, p.hq} : Shape{p.hq};
}

Shape shape_of_lse(const Problem& p) {
  if (p.lse == LseLayout::padded32) return {p.b, p.hq, (p.sq + 31) / 32 * 32};
  return p.packed_q ? Shape{p.hq, p.total_q} : Shape{p.b, p.hq, p.sq};
}

Shape strides_from(const Problem::Strides& strides) {
  if (strides == Problem::Strides{}) return {};
  return {strides.begin(), strides.end()};
}

}  // namespace attune::testing
