#include "io/convert.h"

#include <fmt/format.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "io/no_throw.h"

namespace attune {
namespace {

// A binary format; integers only below, so that neither the compiler's flags nor the processor's rounding
// mode have a say. One without infinities has numbers where those of IEEE have them, and one NaN a sign,
// all bits set.
template <typename BitsType, int kMantissaBits, int kExponentBits, bool kHasInfinities = true>
struct Format {
  using Bits = BitsType;
  static constexpr int kMantissa = kMantissaBits;
  static constexpr int kBias = (1 << (kExponentBits - 1)) - 1;
  static constexpr int kMaxExponent = (1 << kExponentBits) - 1;  // the field of inf and NaN
  static constexpr int kSign = kMantissaBits + kExponentBits;    // its bit
  static constexpr bool kInfinities = kHasInfinities;
  // What magnitudes past the range become: infinity, or the largest number, one below NaN.
  static constexpr std::uint64_t kTop =
      kHasInfinities ? std::uint64_t{kMaxExponent} << kMantissaBits
                     : (std::uint64_t{1} << (kMantissaBits + kExponentBits)) - 2;
};
using F16 = Format<std::uint16_t, 10, 5>;
using F8E4M3 = Format<std::uint8_t, 3, 4, false>;
using BF16 = Format<std::uint16_t, 7, 8>;
using F32 = Format<std::uint32_t, 23, 8>;
using F64 = Format<std::uint64_t, 52, 11>;

// Moves a significand right by `shift` bits, to nearest, ties to even; left when it is negative.
constexpr std::uint64_t shift_rounded(std::uint64_t significand, int shift) {
  if (shift <= 0) return significand << -shift;
  if (shift >= 64) return 0;  // significands have at most 53 bits: below half of the last place
  const std::uint64_t kept = significand >> shift;
  const std::uint64_t rest = significand & ((std::uint64_t{1} << shift) - 1);
  const std::uint64_t half = std::uint64_t{1} << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1U) != 0) ? 1 : 0);
}

template <typename From, typename To>
constexpr typename To::Bits round_bits(typename From::Bits from) {
  const std::uint64_t bits = from;
  const std::uint64_t sign = (bits >> From::kSign & 1U) << To::kSign;
  const std::uint64_t mantissa = bits & ((std::uint64_t{1} << From::kMantissa) - 1);
  const int exponent = static_cast<int>(bits >> From::kMantissa) & From::kMaxExponent;

  const bool largest = exponent == From::kMaxExponent;
  if (From::kInfinities && largest && mantissa == 0) {
    return static_cast<typename To::Bits>(sign | To::kTop);
  }
  constexpr std::uint64_t kAllSet = (std::uint64_t{1} << From::kMantissa) - 1;
  if (largest && (From::kInfinities || mantissa == kAllSet)) {  // NaN
    if constexpr (!To::kInfinities) return static_cast<typename To::Bits>(sign | (To::kTop + 1));
    constexpr int kShift = From::kMantissa - To::kMantissa;
    std::uint64_t payload =
        kShift > 0 ? mantissa >> (kShift > 0 ? kShift : 0) : mantissa << (kShift < 0 ? -kShift : 0);
    // A NaN whose payload does not fit must not become an infinity.
    if (payload == 0) payload = std::uint64_t{1} << (To::kMantissa - 1);
    return static_cast<typename To::Bits>(sign | To::kTop | payload);
  }
  // The value is significand * 2^scale.
  const std::uint64_t significand =
      exponent == 0 ? mantissa : mantissa | std::uint64_t{1} << From::kMantissa;
  if (significand == 0) return static_cast<typename To::Bits>(sign);
  const int scale = (exponent == 0 ? 1 : exponent) - From::kBias - From::kMantissa;
  const int leading = scale + static_cast<int>(std::bit_width(significand)) - 1;
  // The last place of the result is 2^ulp; subnormals share the one of the least normal number.
  const int field = leading + To::kBias < 1 ? 1 : leading + To::kBias;
  const int ulp = field - To::kBias - To::kMantissa;
  const std::uint64_t rounded = shift_rounded(significand, ulp - scale);
  // Adding, not or-ing: the leading bit of a normal number counts as 1 in the exponent field, a
  // subnormal has none, and a carry out of the mantissa moves on to the next exponent by itself.
  const std::uint64_t result = (static_cast<std::uint64_t>(field - 1) << To::kMantissa) + rounded;
  return static_cast<typename To::Bits>(sign | (result < To::kTop ? result : To::kTop));
}

template <typename From, typename To>
void convert(const AlignedBytes& from, AlignedBytes& to) {
  const std::size_t n = from.size() / sizeof(typename From::Bits);
  to.resize(n * sizeof(typename To::Bits));
  for (std::size_t i = 0; i < n; ++i) {
    typename From::Bits in{};
    std::memcpy(&in, from.data() + i * sizeof(in), sizeof(in));
    const typename To::Bits out = round_bits<From, To>(in);
    std::memcpy(to.data() + i * sizeof(out), &out, sizeof(out));
  }
}

// f(Format{}) for a floating-point dtype; false for the others.
template <typename F>
bool with_format(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f16:
      f(F16{});
      return true;
    case DType::bf16:
      f(BF16{});
      return true;
    case DType::f8e4m3:
      f(F8E4M3{});
      return true;
    case DType::f32:
      f(F32{});
      return true;
    case DType::f64:
      f(F64{});
      return true;
    default:
      return false;
  }
}

}  // namespace

Expected<Tensor> cast(const Tensor& tensor, DType dtype) {
  return no_throw([&]() -> Expected<Tensor> {
    if (Status status = check_consistent(tensor); !status.ok()) return status;
    if (dtype == tensor.dtype) return tensor;
    Tensor result{tensor.name, dtype, tensor.shape, {}};
    bool known = false;
    with_format(tensor.dtype, [&]<typename From>(From) {
      known =
          with_format(dtype, [&]<typename To>(To) { convert<From, To>(tensor.data, result.data); });
    });
    if (!known) {
      return Status(
          Code::unsupported,
          fmt::format("tensor {} cannot be cast from {} to {}: only f32, f16, bf16, f8e4m3 and f64 "
                      "convert into each other",
                      in_quotes(tensor.name), to_string(tensor.dtype), to_string(dtype)));
    }
    return result;
  });
}

}  // namespace attune
