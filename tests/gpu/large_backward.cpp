#include "tests/gpu/large_backward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "problem/shapes.h"
#include "tests/gpu/backward_case.h"
#include "tests/support/on_gpu.h"

namespace attune::testing {
namespace {

// Where in its pattern a tensor begins: no two see the same numbers at the same place.
std::int64_t start_of(std::string_view name) {
  if (name == "k") return 3000000;
  if (name == "v") return 6000000;
  if (name == "grad_o") return 9000000;
  return name == "bias" ? 12000000 : 0;
}

using Values = std::vector<double>;

// The elements of keys [first, first + count) of a gradient [1, keys, 1, width], times `factor`.
Values cut(const Values& all, std::int64_t first, std::int64_t count, std::int64_t width,
           double factor) {
  const auto begin = all.begin() + first * width;
  Values part(begin, begin + count * width);
  for (double& value : part) value *= factor;
  return part;
}

std::string complain(std::string_view name, const oracle::Error& error) {
  if (error.pass()) return {};
  return fmt::format("{}: max {:.3g} (ratio {:.3g}), rms {:.3g} (ratio {:.3g}), worst {}; ", name,
                     error.max, error.max_ratio, error.rms, error.rms_ratio, error.first_bad);
}

// A gradient of keys that are a part of the Problem's. `exact` has all of them, `plain` begins with key
// `plain_first`.
std::string judge_key_rows(std::string_view name, const TensorView& got, Values oracle::Result::*of,
                           oracle::Terms::Sum oracle::Terms::*terms, const oracle::Result& exact,
                           const oracle::Result& plain, std::int64_t first,
                           std::int64_t plain_first, double factor) {
  const std::int64_t count = got.shape[1], width = got.shape[3];
  oracle::Terms::Sum sum = exact.terms.*terms;
  // The mean square is the rows', of which these are some.
  sum.squares *= factor * factor * static_cast<double>(got.elements()) /
                 static_cast<double>((exact.*of).size());
  sum.max *= factor;
  return complain(name, oracle::compare(got, cut(exact.*of, first, count, width, factor),
                                        cut(plain.*of, first - plain_first, count, width, 1), sum));
}

}  // namespace

Arguments LargeBackward::Part::arguments() const {
  Arguments a;
  a.q = q.view();
  a.k = k.view();
  a.v = v.view();
  a.o = o.view();
  a.lse = lse.view();
  a.grad_o = grad_o.view();
  a.bias = bias.view();
  return a;
}

const Pattern& LargeBackward::pattern_of(std::string_view name) const {
  return name == "q" || name == "grad_o" ? queries_ : others_;
}

Status LargeBackward::run() {
  Arguments backward, forward;
  for (const TensorSpec& spec : tensors_of(p_)) {
    if (spec.role == Role::unused) continue;
    TensorView view = row_major_view(spec);
    Expected<cuda::DeviceBuffer> buffer = cuda::DeviceBuffer::allocate(
        gpu(), static_cast<std::size_t>(view.elements()) * size_of(view.dtype));
    if (!buffer.ok()) return buffer.status();
    view.data = buffer->data();
    const std::string_view name = spec.name;
    const bool computed = spec.role == Role::output || name == "o" || name == "lse";
    Status status = computed ? buffer->fill(0xFF) : pattern_of(name).fill(*buffer, start_of(name));
    if (!status.ok()) return status;
    memory_[name] = std::move(buffer).value();
    views_[name] = view;
    backward.*spec.view = view;
  }
  for (const TensorSpec& spec : tensors_of(forward_of(p_))) {
    if (spec.role != Role::unused) forward.*spec.view = backward.*spec.view;
  }
  for (const auto& [problem, arguments] : {std::pair{forward_of(p_), forward}, {p_, backward}}) {
    const Expected<Plan> plan = make_plan(problem);
    if (!plan.ok()) return plan.status();
    const auto workspace = cuda::DeviceBuffer::allocate(gpu(), plan->workspace_bytes());
    if (!workspace.ok()) return workspace.status();
    if (Status status = workspace->fill(0xFF); !status.ok()) return status;
    Status status = plan->run(arguments, {workspace->data(), workspace->size()});
    if (status.ok()) status = cuda::synchronize(gpu());
    if (!status.ok()) return status;
  }
  return {};
}

std::int64_t LargeBackward::diagonal(std::int64_t query) const {
  const bool at_end = p_.mask.diagonal == Diagonal::bottom_right;
  return query + p_.mask.offset + (at_end ? p_.sk - p_.sq : 0);
}

// All keys where a side is open, and where there is a bias: its gradient has an element for each.
Span LargeBackward::keys_of(Span queries) const {
  Span keys{0, p_.sk};
  if (p_.bias.kind != BiasKind::none) return keys;
  const Mask& mask = p_.mask;
  if (mask.left >= 0) keys.begin = diagonal(queries.begin) - mask.left;
  if (mask.causal || mask.right >= 0) {
    keys.end = diagonal(queries.end - 1) + (mask.causal ? 0 : mask.right) + 1;
  }
  return {std::clamp<std::int64_t>(keys.begin, 0, p_.sk - 1),
          std::clamp<std::int64_t>(keys.end, 1, p_.sk)};
}

Span LargeBackward::queries_of(Span keys) const {
  Span queries{0, p_.sq};
  const Mask& mask = p_.mask;
  if (mask.causal || mask.right >= 0) {
    queries.begin = keys.begin - (mask.causal ? 0 : mask.right) - diagonal(0);
  }
  if (mask.left >= 0) queries.end = keys.end + mask.left - diagonal(0);
  return {std::clamp<std::int64_t>(queries.begin, 0, p_.sq - 1),
          std::clamp<std::int64_t>(queries.end, 1, p_.sq)};
}

TensorMemory LargeBackward::rows(std::string_view name, std::int64_t b, Span span,
                                 std::int64_t head, std::int64_t heads) const {
  const TensorView& all = views_.at(name);
  const std::int64_t width = all.shape[3];
  TensorMemory some(all.dtype, {1, span.size(), heads, width});
  // What can't be read stays NaN, and nothing passes.
  const std::int64_t together = heads == all.shape[2] ? span.size() : 1;  // neighbours in memory
  const std::size_t size = size_of(all.dtype);
  const std::size_t bytes = static_cast<std::size_t>(together * heads * width) * size;
  auto* to = static_cast<std::byte*>(some.view().data);
  for (std::int64_t s = span.begin; s < span.end; s += together, to += bytes) {
    const std::int64_t row = (b * all.shape[1] + s) * all.shape[2] + head;
    (void)memory_.at(name).read(to, bytes, static_cast<std::size_t>(row * width) * size);
  }
  return some;
}

TensorMemory LargeBackward::drawn(std::string_view name, std::int64_t b, Span span,
                                  std::int64_t head, std::int64_t heads) const {
  const TensorView& all = views_.at(name);
  TensorMemory some(all.dtype, {1, span.size(), heads, all.shape[3]});
  for_each_index(some.view(), [&](const Index& i) {
    const std::int64_t row = (b * all.shape[1] + span.begin + i[1]) * all.shape[2] + head + i[2];
    some.set(i, pattern_of(name)(start_of(name) + row * all.shape[3] + i[3]));
  });
  return some;
}

LargeBackward::Part LargeBackward::part(std::int64_t b, std::int64_t h, Span queries,
                                        Span keys) const {
  const std::int64_t group = p_.hq / p_.hkv;
  Part part;
  Problem& one = part.problem;
  one.kind = Kind::backward;
  one.device = Device::cpu;
  one.dtype = p_.dtype;
  one.hq = group;
  one.sq = queries.size();
  one.sk = keys.size();
  one.d = p_.d;
  one.dv = p_.dv;
  one.lse = LseLayout::plain;
  one.mask = p_.mask;
  // The diagonal moves with the first query and the first key.
  one.mask.diagonal = Diagonal::top_left;
  one.mask.offset = diagonal(queries.begin) - keys.begin;
  part.q = drawn("q", b, queries, h * group, group);
  part.k = drawn("k", b, keys, h, 1);
  part.v = drawn("v", b, keys, h, 1);
  part.grad_o = drawn("grad_o", b, queries, h * group, group);
  part.o = rows("o", b, queries, h * group, group);
  part.lse = TensorMemory(DType::f32, {1, group, queries.size()});
  auto* lse = static_cast<float*>(part.lse.view().data);
  for (std::int64_t g = 0; g < group; ++g, lse += queries.size()) {
    const std::int64_t at = (b * p_.hq + h * group + g) * p_.sq + queries.begin;
    (void)memory_.at("lse").read(lse, static_cast<std::size_t>(queries.size()) * sizeof(float),
                                 static_cast<std::size_t>(at) * sizeof(float));
  }
  if (p_.bias.kind == BiasKind::none) return part;
  one.bias = p_.bias;  // one for all heads
  part.bias = TensorMemory(p_.bias.dtype, {1, 1, queries.size(), keys.size()});
  for_each_index(part.bias.view(), [&](const Index& i) {
    const std::int64_t at = (queries.begin + i[2]) * p_.sk + keys.begin + i[3];
    part.bias.set(i, others_(start_of("bias") + at));
  });
  return part;
}

std::string LargeBackward::judge(std::int64_t b, std::int64_t h, Span queries, Span keys) const {
  const Span seen = keys_of(queries);
  const Part part = this->part(b, h, queries, seen);
  const Arguments a = part.arguments();
  const auto exact = oracle::run(part.problem, a, oracle::Rounding::exact);
  const auto plain = oracle::run(part.problem, a, oracle::Rounding::plain);
  if (!exact.ok()) return exact.status().message();
  if (!plain.ok()) return plain.status().message();
  const std::int64_t group = p_.hq / p_.hkv;
  std::string wrong;
  const TensorMemory dq = rows("grad_q", b, queries, h * group, group);
  wrong += complain("grad_q", oracle::compare(dq.view(), &oracle::Result::grad_q, *exact, *plain));
  if (p_.bias.grad) {
    TensorMemory dbias(views_.at("grad_bias").dtype, {1, 1, queries.size(), p_.sk});
    const std::size_t size = size_of(dbias.view().dtype);
    (void)memory_.at("grad_bias")
        .read(dbias.view().data, static_cast<std::size_t>(queries.size() * p_.sk) * size,
              static_cast<std::size_t>(queries.begin * p_.sk) * size);
    wrong += complain("grad_bias",
                      oracle::compare(dbias.view(), &oracle::Result::grad_bias, *exact, *plain));
  }
  if (keys.size() > 0) {
    const TensorMemory dk = rows("grad_k", b, keys, h, 1), dv = rows("grad_v", b, keys, h, 1);
    const std::int64_t first = keys.begin - seen.begin;
    wrong += judge_key_rows("grad_k", dk.view(), &oracle::Result::grad_k, &oracle::Terms::grad_k,
                            *exact, *plain, first, 0, 1);
    wrong += judge_key_rows("grad_v", dv.view(), &oracle::Result::grad_v, &oracle::Terms::grad_v,
                            *exact, *plain, first, 0, 1);
  }
  if (wrong.empty()) return wrong;
  return fmt::format("{}: b {}, key head {}, queries [{}, {}), keys [{}, {}): {}\n", print(p_), b,
                     h, queries.begin, queries.end, keys.begin, keys.end, wrong);
}

std::string LargeBackward::judge_queries(std::int64_t b, std::int64_t h, Span queries) const {
  return judge(b, h, queries, {});
}

std::string LargeBackward::judge_keys(std::int64_t b, std::int64_t h, Span keys) const {
  return judge(b, h, queries_of(keys), keys);
}

std::string LargeBackward::judge_repeated(std::int64_t period, Span keys) const {
  // Exact: one period with all keys, as often as it comes. Plain: all queries with these keys alone, for
  // float32 takes P and delta from the LSE and the o that it is given.
  const Part once = part(0, 0, {0, period}, {0, p_.sk});
  const Part all = part(0, 0, {0, p_.sq}, keys);
  const auto exact = oracle::run(once.problem, once.arguments(), oracle::Rounding::exact);
  const auto plain = oracle::run(all.problem, all.arguments(), oracle::Rounding::plain);
  if (!exact.ok()) return exact.status().message();
  if (!plain.ok()) return plain.status().message();
  const auto times = static_cast<double>(p_.sq / period);
  const TensorMemory dk = rows("grad_k", 0, keys, 0, 1), dv = rows("grad_v", 0, keys, 0, 1);
  return judge_key_rows("grad_k", dk.view(), &oracle::Result::grad_k, &oracle::Terms::grad_k,
                        *exact, *plain, keys.begin, keys.begin, times) +
         judge_key_rows("grad_v", dv.view(), &oracle::Result::grad_v, &oracle::Terms::grad_v,
                        *exact, *plain, keys.begin, keys.begin, times);
}

}  // namespace attune::testing
