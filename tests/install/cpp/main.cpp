// A program outside Attune: one query that sees two keys, computed by hand below.
#include <attune/attune.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  const std::vector<float> q = {2, 0};
  const std::vector<float> k = {1, 5, -1, 7};  // [1, 2, 1, 2]
  const std::vector<float> v = {10, 20};       // [1, 2, 1, 1]
  std::vector<float> o(1, -1.0F);
  const auto f32 = attune::DType::f32;
  const auto view = [&](const std::vector<float>& data, std::int64_t s, std::int64_t d) {
    return attune::TensorView::contiguous(data.data(), f32, {1, s, 1, d});
  };
  const attune::Status status =
      attune::attention(view(q, 1, 2), view(k, 2, 2), view(v, 2, 1), view(o, 1, 1), {.scale = 0.5});
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.message().c_str());
    return 1;
  }
  // Scores 1 and -1, so the first weight is 1 / (1 + exp(-2)).
  const double first = 1 / (1 + std::exp(-2.0));
  const double want = 10 * first + 20 * (1 - first);
  std::printf("%.7f, by hand %.7f\n", o[0], want);
  if (std::fabs(o[0] - want) > 1e-5) return 1;

  // A refusal is a value with a reason.
  const attune::Status refused = attune::attention(view(q, 1, 2), view(k, 2, 2), view(v, 2, 1),
                                                   view(o, 1, 1), {.dropout = 1.5});
  if (refused.ok() || refused.message().find("1.5") == std::string::npos) {
    std::fprintf(stderr, "dropout = 1.5: '%s'\n", refused.message().c_str());
    return 1;
  }

  const attune::Expected<attune::Problem> problem = attune::parse("forward sq=1 sk=2 d=2 dv=1");
  if (!problem.ok()) return 1;
  const attune::Expected<attune::Plan> plan = attune::make_plan(*problem);
  if (!plan.ok()) return 1;
  return plan->kernel().empty() ? 1 : 0;
}
