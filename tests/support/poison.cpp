// Tensors, continued: NaN and infinities in whatever the contract says is never read. Which that is,
// is worked out here from the contract alone, by plain loops.
#include <cmath>
#include <limits>

#include "tests/support/random_problem.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

// The mask without lengths and bias. j - c never overflows: |c| <= 2^62 + 2^32.
bool mask_attends(const Mask& mask, std::int64_t i, std::int64_t j, std::int64_t sq,
                  std::int64_t sk) {
  std::int64_t c = i + mask.offset;
  if (mask.diagonal == Diagonal::bottom_right) c += sk - sq;
  if (mask.causal && j > c) return false;
  if (mask.left >= 0 && c - j > mask.left) return false;
  return mask.right < 0 || j - c <= mask.right;
}

// Where an index lies in a row-major array of the view's shape.
std::size_t position(const TensorView& view, const Index& index) {
  std::int64_t at = 0;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(view.rank); ++axis) {
    at = at * view.shape[axis] + index[axis];
  }
  return static_cast<std::size_t>(at);
}

// Poisons every element for which read(index) is false. Elements that share memory with one that is
// read keep their value.
template <typename Read>
void poison_where_unread(TensorMemory& memory, Random& random, Read&& read) {
  std::vector<double> kept;
  for_each_index(memory.view(), [&](const Index& i) {
    if (read(i)) kept.push_back(memory.get(i));
  });
  for_each_index(memory.view(), [&](const Index& i) {
    if (read(i)) return;
    memory.set(i, random.pick<double>({std::numeric_limits<double>::quiet_NaN(),
                                       std::numeric_limits<double>::infinity(),
                                       -std::numeric_limits<double>::infinity()}));
  });
  std::size_t at = 0;
  for_each_index(memory.view(), [&](const Index& i) {
    if (read(i)) memory.set(i, kept[at++]);
  });
}

}  // namespace

void Tensors::poison_keys_and_bias() {
  const Problem& p = problem_;
  const TensorView& k = k_->view();
  std::vector<char> key_read(static_cast<std::size_t>(k.shape[0] * k.shape[1] * p.hkv), 0);
  std::vector<char> bias_read;
  if (bias_ != nullptr) bias_read.assign(static_cast<std::size_t>(bias_->view().elements()), 0);

  const auto key_position = [&](std::int64_t n, std::int64_t token, std::int64_t head) {
    return static_cast<std::size_t>((n * k.shape[1] + token) * p.hkv + head);
  };
  // Marks the bias element as read; true unless it masks the key out.
  const auto bias_keeps = [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
    if (bias_ == nullptr) return true;
    const Index at{p.bias.broadcast_b ? 0 : b, p.bias.broadcast_h ? 0 : h,
                   p.bias.broadcast_q ? 0 : i, p.bias.broadcast_k ? 0 : j};
    bias_read[position(bias_->view(), at)] = 1;
    const double value = bias_->get(at);
    return p.bias.kind == BiasKind::boolean ? value != 0 : !(std::isinf(value) && value < 0);
  };

  for (std::int64_t b = 0; b < p.b; ++b) {
    const std::int64_t sq = sq_[static_cast<std::size_t>(b)];
    const std::int64_t sk = sk_[static_cast<std::size_t>(b)];
    for (std::int64_t j = 0; j < sk; ++j) {
      std::int64_t n = b, token = j;
      if (p.packed_k) {
        n = 0;
        token = k_start_[static_cast<std::size_t>(b)] + j;
      } else if (p.page_size > 0) {
        n = static_cast<std::int64_t>(table_->get(Index{b, j / p.page_size, 0, 0}));
        token = j % p.page_size;
      }
      for (std::int64_t h = 0; h < p.hq; ++h) {
        char& read = key_read[key_position(n, token, h / (p.hq / p.hkv))];
        for (std::int64_t i = 0; i < sq; ++i) {
          if (mask_attends(p.mask, i, j, sq, sk) && bias_keeps(b, h, i, j)) read = 1;
        }
      }
    }
  }

  const auto read = [&](const Index& i) { return key_read[key_position(i[0], i[1], i[2])] != 0; };
  poison_where_unread(*k_, random_, read);
  poison_where_unread(*v_, random_, read);
  if (p.bias.kind == BiasKind::additive) {
    poison_where_unread(*bias_, random_,
                        [&](const Index& i) { return bias_read[position(bias_->view(), i)] != 0; });
  }
}

// Tokens behind the last packed sequence.
void Tensors::poison_rows(TensorMemory& memory, std::size_t token_axis) {
  if (!problem_.packed_q) return;
  const std::int64_t end = sq_.empty() ? 0 : q_start_.back() + sq_.back();
  poison_where_unread(memory, random_, [&](const Index& i) { return i[token_axis] < end; });
}

// Those, and the padding of each sequence.
void Tensors::poison_rows_of_lse(TensorMemory& memory) {
  if (problem_.lse != LseLayout::padded32) {
    poison_rows(memory, 1);
    return;
  }
  poison_where_unread(memory, random_,
                      [&](const Index& i) { return i[2] < sq_[static_cast<std::size_t>(i[0])]; });
}

void Tensors::poison_unread() {
  poison_keys_and_bias();
  poison_rows(*q_, 1);
  if (grad_o_ != nullptr) poison_rows(*grad_o_, 1);
  if (grad_lse_ != nullptr) poison_rows_of_lse(*grad_lse_);
}

}  // namespace attune::testing
