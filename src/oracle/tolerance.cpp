#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <attune/oracle.hpp>
#include <attune/tensor.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "oracle/read.h"
#include "oracle/rounding.h"

namespace attune::oracle {
namespace {

constexpr double kMaxFactor = 2.0;
constexpr double kRmsFactor = 1.5;
constexpr double kFloat32 = 0x1p-23;  // the unit of Terms

struct Format {
  double epsilon = 0;   // one unit in the last place of 1
  double smallest = 0;  // the step between subnormals, below which nothing can be told apart
};

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return {0x1p-10, 0x1p-24};
    case DType::bf16:
      return {0x1p-7, 0x1p-133};
    case DType::f8e4m3:
      return {0x1p-3, 0x1p-9};
    case DType::f64:
      return {0x1p-52, 0x0.0000000000001p-1022};
    default:
      return {0x1p-23, 0x1p-149};
  }
}

std::string describe(const TensorView& got, const Index& index, double value, double want) {
  return fmt::format("[{}]: got {:.9g}, want {:.9g}",
                     fmt::join(index.begin(), index.begin() + got.rank, ", "), value, want);
}

double ratio(double error, double allowed) {
  if (error == 0) return 0;
  return allowed > 0 ? error / allowed : std::numeric_limits<double>::infinity();
}

// Root of the mean of squares that neither overflows nor underflows on the way.
class Rms {
 public:
  void add(double x) {
    ++count_;
    x = std::fabs(x);
    if (x == 0) return;
    if (x > scale_) {
      sum_ = 1 + sum_ * (scale_ / x) * (scale_ / x);
      scale_ = x;
    } else {
      sum_ += (x / scale_) * (x / scale_);
    }
  }
  [[nodiscard]] double value() const {
    return count_ == 0 ? 0 : scale_ * std::sqrt(sum_ / static_cast<double>(count_));
  }

 private:
  double scale_ = 0, sum_ = 0;
  std::int64_t count_ = 0;
};

struct TermsOf {
  std::vector<double> Result::*tensor;
  Terms::Sum Terms::*terms;
};

constexpr TermsOf kTermsOf[] = {
    {&Result::o, &Terms::o},
    {&Result::lse, &Terms::lse},
    {&Result::grad_q, &Terms::grad_q},
    {&Result::grad_k, &Terms::grad_k},
    {&Result::grad_v, &Terms::grad_v},
    {&Result::grad_bias, &Terms::grad_bias},
    {&Result::grad_sink, &Terms::grad_sink},
    {&Result::grad_alibi_slopes, &Terms::grad_alibi_slopes},
};

bool same_kind(double got, double want) {
  if (std::isnan(want)) return std::isnan(got);
  return got == want;  // both the same infinity
}

}  // namespace

Error compare(const TensorView& got, const std::vector<double>& exact,
              const std::vector<double>& plain, const Terms::Sum& terms) {
  Error error;
  if (got.elements() != static_cast<std::int64_t>(exact.size()) ||
      (!plain.empty() && plain.size() != exact.size())) {
    error.same_nonfinite = false;
    error.first_bad = fmt::format("{} has {} elements, the oracle {}, the plain computation {}",
                                  to_string(got), got.elements(), exact.size(), plain.size());
    return error;
  }
  const Format format = format_of(got.dtype);

  // The yardstick, from the elements whose exact value the dtype can hold.
  double largest = 0;
  std::int64_t finite = 0;
  Rms plain_rms;
  for (std::size_t n = 0; n < exact.size(); ++n) {
    if (!std::isfinite(exact[n]) || std::isinf(round_to(got.dtype, exact[n]))) continue;
    largest = std::max(largest, std::fabs(exact[n]));
    ++finite;
    if (plain.empty() || !std::isfinite(plain[n])) continue;
    const double difference = std::fabs(plain[n] - exact[n]);
    error.plain_max = std::max(error.plain_max, difference);
    plain_rms.add(difference);
  }
  error.plain_rms = plain_rms.value();
  // An all-zero tensor (nothing attended, so no terms) has to be zero exactly.
  const double ulp = largest > 0 ? std::max(format.epsilon * largest, format.smallest) : 0;
  error.floor = ulp + std::max(0.0, kFloat32 * terms.max - kMaxFactor * error.plain_max);
  const double terms_rms = finite > 0 ? std::sqrt(terms.squares / static_cast<double>(finite)) : 0;
  error.rms_floor = ulp + std::max(0.0, kFloat32 * terms_rms - kRmsFactor * error.plain_rms);
  const double allowed = kMaxFactor * error.plain_max + error.floor;

  Rms rms;
  std::size_t n = 0;
  std::string first_nonfinite;
  std::string worst;
  for_each_index(got, [&](const Index& index) {
    const double want = exact[n++];
    const double value = read(got, index);
    if (!std::isfinite(want) || !std::isfinite(value)) {
      // A finite value past the dtype's range, or within the tolerance of it, may overflow.
      const bool overflow = std::isfinite(want) && std::isinf(value) &&
                            std::signbit(value) == std::signbit(want) &&
                            std::isinf(round_to(got.dtype, want + std::copysign(allowed, want)));
      if (!overflow && !same_kind(value, want)) {
        error.same_nonfinite = false;
        if (first_nonfinite.empty()) first_nonfinite = describe(got, index, value, want);
      }
      return;
    }
    const double difference = std::fabs(value - want);
    rms.add(difference);
    if (difference > error.max) {
      error.max = difference;
      worst = describe(got, index, value, want);
    }
  });
  error.rms = rms.value();
  error.max_ratio = ratio(error.max, allowed);
  error.rms_ratio = ratio(error.rms, kRmsFactor * error.plain_rms + error.rms_floor);
  error.first_bad = first_nonfinite.empty() ? worst : first_nonfinite;
  return error;
}

Error compare(const TensorView& got, std::vector<double> Result::*tensor, const Result& exact,
              const Result& plain) {
  Terms::Sum terms;
  for (const TermsOf& each : kTermsOf) {
    if (each.tensor == tensor) terms = exact.terms.*each.terms;
  }
  return compare(got, exact.*tensor, plain.*tensor, terms);
}

}  // namespace attune::oracle
