#include <attune/problem.hpp>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace attune {
namespace {

// Folds 64 bits in: the multiplier and the shifts are those of SplitMix64's finaliser.
class Mixer {
 public:
  void add(std::uint64_t bits) {
    state_ ^= bits + 0x9e3779b97f4a7c15U;
    state_ = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9U;
    state_ ^= state_ >> 27;
  }
  void add(std::int64_t value) { add(static_cast<std::uint64_t>(value)); }
  // -0.0 == 0.0, so both must hash alike.
  void add(double value) { add(std::bit_cast<std::uint64_t>(value == 0 ? 0.0 : value)); }
  void add(const Problem::Strides& strides) {
    for (const std::int64_t stride : strides) add(stride);
  }
  [[nodiscard]] std::uint64_t get() const { return state_; }

 private:
  std::uint64_t state_ = 0;
};

// Small fields side by side in one word.
class Bits {
 public:
  template <typename T>
  Bits& put(T value, int width = 1) {
    word_ = (word_ << width) | static_cast<std::uint64_t>(value);
    return *this;
  }
  [[nodiscard]] std::uint64_t get() const { return word_; }

 private:
  std::uint64_t word_ = 0;
};

}  // namespace

std::size_t hash(const Problem& p) {
  Mixer mixer;
  Bits bits;
  bits.put(p.kind, 2).put(p.device, 2).put(p.dtype, 4).put(p.descale);
  bits.put(p.mask.causal).put(p.mask.diagonal);
  bits.put(p.bias.kind, 2).put(p.bias.dtype, 4).put(p.bias.grad);
  bits.put(p.bias.broadcast_b).put(p.bias.broadcast_h);
  bits.put(p.bias.broadcast_q).put(p.bias.broadcast_k).put(p.bias.aligned);
  bits.put(p.alibi, 2).put(p.alibi_grad).put(p.sink).put(p.sink_grad).put(p.dropout_stream);
  bits.put(p.key_lengths).put(p.packed_q).put(p.packed_k);
  bits.put(p.lse, 2).put(p.lse_grad).put(p.deterministic).put(p.scale.has_value());
  mixer.add(bits.get());
  for (const std::int64_t n :
       {p.b, p.hq, p.hkv, p.sq, p.sk, p.d, p.dv, p.mask.offset, p.mask.left, p.mask.right,
        p.total_q, p.total_k, p.page_size, p.pages, p.alignment}) {
    mixer.add(n);
  }
  mixer.add(p.scale.value_or(0.0));
  mixer.add(p.softcap);
  mixer.add(p.dropout);
  for (const Problem::Strides* strides : {&p.q_strides, &p.k_strides, &p.v_strides, &p.o_strides}) {
    mixer.add(*strides);
  }
  return static_cast<std::size_t>(mixer.get());
}

}  // namespace attune
