// Writes random Problems, their inputs and what the oracle makes of them, for oracle_numpy.py to
// compute again:  attune_oracle_dump FOLDER [COUNT [FIRST_SEED]]
// Each Problem is FOLDER/<n>.json, with the Problem's fields and where each tensor lies, and
// FOLDER/<n>.bin, all tensors as row-major float64 in native byte order.
#include <fmt/format.h>

#include <attune/arguments.hpp>
#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "oracle/read.h"
#include "tests/support/random_problem.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kMostElements = 25'000;  // of one Problem, to keep the folder small
constexpr std::int64_t kMostScores = 300'000;   // B Hq Sq Sk: the second opinion holds them all

// Collects tensors one after another.
class Writer {
 public:
  void add(const char* name, const TensorView& view) {
    if (view.empty()) return;
    std::vector<double> values;
    oracle::for_each_index(
        view, [&](const oracle::Index& index) { values.push_back(oracle::read(view, index)); });
    add(name, values, Shape(view.shape.begin(), view.shape.begin() + view.rank));
  }

  void add(const char* name, const std::vector<double>& values, const Shape& shape) {
    tensors_[name] = {{"shape", shape}, {"first", values_.size()}};
    values_.insert(values_.end(), values.begin(), values.end());
  }

  [[nodiscard]] const Json& tensors() const { return tensors_; }
  [[nodiscard]] const std::vector<double>& values() const { return values_; }

 private:
  Json tensors_ = Json::object();
  std::vector<double> values_;
};

Json fields(const Problem& p, const Arguments& a) {
  const auto bias_kind = [&] {
    if (p.bias.kind == BiasKind::none) return "none";
    return p.bias.kind == BiasKind::boolean ? "boolean" : "additive";
  };
  return {{"text", print(p)},
          {"backward", p.kind == Kind::backward},
          {"b", p.b},
          {"hq", p.hq},
          {"hkv", p.hkv},
          {"sq", p.sq},
          {"sk", p.sk},
          {"d", p.d},
          {"dv", p.dv},
          {"scale", p.scale ? Json(*p.scale) : Json(nullptr)},
          {"softcap", p.softcap},
          {"causal", p.mask.causal},
          {"bottom_right", p.mask.diagonal == Diagonal::bottom_right},
          {"offset", p.mask.offset},
          {"left", p.mask.left},
          {"right", p.mask.right},
          {"bias", bias_kind()},
          {"packed_q", p.packed_q},
          {"packed_k", p.packed_k},
          {"page_size", p.page_size},
          {"padded_lse", p.lse == LseLayout::padded32},
          {"dropout", p.dropout},
          {"dropout_stream", p.dropout_stream == DropoutStream::fa2 ? "fa2" : "curand"},
          {"dropout_seed", a.dropout_seed},
          {"dropout_offset", a.dropout_offset}};
}

void add_inputs(const Arguments& a, Writer& writer) {
  writer.add("q", a.q);
  writer.add("k", a.k);
  writer.add("v", a.v);
  writer.add("q_scale", a.q_scale);
  writer.add("k_scale", a.k_scale);
  writer.add("v_scale", a.v_scale);
  writer.add("bias", a.bias);
  writer.add("alibi_slopes", a.alibi_slopes);
  writer.add("sink", a.sink);
  writer.add("key_lengths", a.key_lengths);
  writer.add("cu_seqlens_q", a.cu_seqlens_q);
  writer.add("cu_seqlens_k", a.cu_seqlens_k);
  writer.add("page_table", a.page_table);
  writer.add("grad_o", a.grad_o);
  writer.add("grad_lse", a.grad_lse);
}

void add_results(const Problem& p, const oracle::Result& r, Writer& writer) {
  writer.add("want_o", r.o, shape_of_o(p));
  writer.add("want_lse", r.lse, shape_of_lse(p));
  if (p.kind != Kind::backward) return;
  writer.add("want_grad_q", r.grad_q, shape_of_q(p));
  writer.add("want_grad_k", r.grad_k, shape_of_k(p));
  writer.add("want_grad_v", r.grad_v, shape_of_v(p));
  if (p.bias.grad) writer.add("want_grad_bias", r.grad_bias, shape_of_bias(p));
  if (p.sink_grad) writer.add("want_grad_sink", r.grad_sink, {p.hq});
  if (p.alibi_grad) {
    writer.add("want_grad_alibi_slopes", r.grad_alibi_slopes, shape_of_slopes(p));
  }
}

bool small_enough(const Problem& p) {
  std::int64_t elements = 0;
  for (const Shape& shape : {shape_of_q(p), shape_of_k(p), shape_of_v(p), shape_of_o(p),
                             p.bias.kind == BiasKind::none ? Shape{0} : shape_of_bias(p)}) {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    elements += count;
  }
  return elements <= kMostElements && p.b * p.hq * p.sq * p.sk <= kMostScores;
}

int dump(const std::string& folder, std::int64_t count, std::uint64_t seed) {
  for (std::int64_t n = 0; n < count; ++seed) {
    const Problem problem = random_problem(seed);
    if (!small_enough(problem)) continue;
    const auto distribution = static_cast<Distribution>(seed % 6);
    const Tensors tensors(problem, distribution, seed);
    const Expected<oracle::Result> result = oracle::run(problem, tensors.arguments());
    if (!result) {
      fmt::print(stderr, "seed {}: {}\n  {}\n", seed, print(problem), result.status().message());
      return EXIT_FAILURE;
    }
    Writer writer;
    add_inputs(tensors.arguments(), writer);
    add_results(problem, *result, writer);
    Json json = fields(problem, tensors.arguments());
    json["seed"] = seed;
    json["distribution"] = to_string(distribution);
    json["tensors"] = writer.tensors();
    std::ofstream text(fmt::format("{}/{}.json", folder, n));
    text << json.dump(1) << '\n';
    std::ofstream binary(fmt::format("{}/{}.bin", folder, n), std::ios::binary);
    binary.write(reinterpret_cast<const char*>(writer.values().data()),
                 static_cast<std::streamsize>(writer.values().size() * sizeof(double)));
    if (!text.flush() || !binary.flush()) {
      fmt::print(stderr, "can't write Problem {} to {}\n", n, folder);
      return EXIT_FAILURE;
    }
    ++n;
  }
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace attune::testing

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    fmt::print(stderr, "usage: {} FOLDER [COUNT [FIRST_SEED]]\n", argv[0]);
    return EXIT_FAILURE;
  }
  const std::int64_t count = argc > 2 ? std::atoll(argv[2]) : 300;
  const std::uint64_t seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0;
  return attune::testing::dump(argv[1], count, seed);
}
