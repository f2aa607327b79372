// Runs the transformer block of tests/wrap/block.json on the CPU, at several sizes and on several threads, beside
// the same in float64 by plain loops. Built and started by tests/wrap_test.py.
//
// usage: block_run FOLDER WEIGHTS    WEIGHTS: float32, one tensor after another, in the order of kShapes
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "block.h"

namespace {

using Doubles = std::vector<double>;

constexpr int kWidth = 64, kHeads = 4, kKeyHeads = 2, kHead = 16, kInner = 160, kQkv = 128;
constexpr float kEpsilon = 1e-5F;

struct Weights {
  Doubles attention_norm, wqkv, wo, mlp_norm, wgate, wup, wdown;
};

Doubles norm(const Doubles& x, const Doubles& weight) {
  Doubles out(x.size());
  for (std::size_t row = 0; row < x.size(); row += kWidth) {
    double squares = 0;
    for (int i = 0; i < kWidth; ++i) squares += x[row + i] * x[row + i];
    const double scale = 1.0 / std::sqrt(squares / kWidth + static_cast<double>(kEpsilon));
    for (int i = 0; i < kWidth; ++i) out[row + i] = x[row + i] * scale * weight[i];
  }
  return out;
}

Doubles linear(const Doubles& x, const Doubles& weight, int inner, int columns) {
  const std::size_t rows = x.size() / inner;
  Doubles out(rows * columns);
  for (std::size_t row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      double sum = 0;
      for (int i = 0; i < inner; ++i) sum += x[row * inner + i] * weight[column * inner + i];
      out[row * columns + column] = sum;
    }
  }
  return out;
}

void rope(Doubles& qkv, int64_t length) {
  for (std::size_t row = 0; row < qkv.size() / kQkv; ++row) {
    const auto position = static_cast<double>(static_cast<int64_t>(row) % length);
    for (int head = 0; head < kHeads + kKeyHeads; ++head) {
      double* x = qkv.data() + row * kQkv + head * kHead;
      for (int i = 0; i < kHead / 2; ++i) {
        const double angle = position * std::pow(10000.0, -i / 8.0);
        const double a = x[i], b = x[i + 8];
        x[i] = a * std::cos(angle) - b * std::sin(angle);
        x[i + 8] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
}

Doubles attention(const Doubles& qkv, int64_t batch, int64_t length) {
  Doubles out(static_cast<std::size_t>(batch * length) * kWidth);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < length; ++i) {
      for (int head = 0; head < kHeads; ++head) {
        const double* q = &qkv[(b * length + i) * kQkv + head * kHead];
        const int key_head = head / (kHeads / kKeyHeads);
        Doubles p(i + 1);
        double most = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int64_t j = 0; j <= i; ++j) {
          const double* k = &qkv[(b * length + j) * kQkv + 64 + key_head * kHead];
          double dot = 0;
          for (int d = 0; d < kHead; ++d) dot += q[d] * k[d];
          p[j] = dot / 4;
          most = std::max(most, p[j]);
        }
        for (double& x : p) sum += x = std::exp(x - most);
        for (int64_t j = 0; j <= i; ++j) {
          const double* v = &qkv[(b * length + j) * kQkv + 96 + key_head * kHead];
          for (int d = 0; d < kHead; ++d)
            out[(b * length + i) * kWidth + head * kHead + d] += p[j] / sum * v[d];
        }
      }
    }
  }
  return out;
}

Doubles block(const Doubles& x, const Weights& w, int64_t batch, int64_t length) {
  Doubles qkv = linear(norm(x, w.attention_norm), w.wqkv, kWidth, kQkv);
  rope(qkv, length);
  Doubles residual = linear(attention(qkv, batch, length), w.wo, kWidth, kWidth);
  for (std::size_t i = 0; i < x.size(); ++i) residual[i] += x[i];
  const Doubles h = norm(residual, w.mlp_norm);
  Doubles gate = linear(h, w.wgate, kWidth, kInner);
  const Doubles up = linear(h, w.wup, kWidth, kInner);
  for (std::size_t i = 0; i < gate.size(); ++i)
    gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  Doubles y = linear(gate, w.wdown, kInner, kWidth);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += residual[i];
  return y;
}

Doubles take(std::ifstream& file, int count) {
  std::vector<float> read(count);
  file.read(reinterpret_cast<char*>(read.data()),
            static_cast<std::streamsize>(count * sizeof(float)));
  return {read.begin(), read.end()};
}

// The largest error as a part of the largest value.
double run(block_instance* instance, const Weights& w, int64_t batch, int64_t length,
           bool own_workspace) {
  std::vector<float> x(static_cast<std::size_t>(batch * length) * kWidth), y(x.size());
  unsigned state = static_cast<unsigned>(batch * 1000 + length);
  for (float& value : x) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
  }
  const int64_t shape[] = {batch, length, kWidth};
  block_arguments a{};
  a.x = attune_wrapped_contiguous(x.data(), ATTUNE_WRAPPED_F32, 3, shape);
  a.y = attune_wrapped_contiguous(y.data(), ATTUNE_WRAPPED_F32, 3, shape);
  a.epsilon = kEpsilon;
  std::vector<unsigned char> memory;
  if (own_workspace) {
    const block_sizes sizes = {batch, length};
    if (block_workspace_bytes(&sizes, &a.workspace_bytes) != ATTUNE_WRAPPED_OK) return 1;
    memory.resize(a.workspace_bytes + 256, 0xff);
    a.workspace = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256);
  }
  if (block_run(instance, &a) != ATTUNE_WRAPPED_OK) {
    std::printf("%s\n", block_last_error());
    return 1;
  }
  const Doubles want = block({x.begin(), x.end()}, w, batch, length);
  double error = 0, largest = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error = std::max(error, std::fabs(static_cast<double>(y[i]) - want[i]));
    largest = std::max(largest, std::fabs(want[i]));
    if (std::isnan(y[i])) return 1;
  }
  return error / largest;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::ifstream file(argv[2], std::ios::binary);
  Weights w;
  w.attention_norm = take(file, kWidth);
  w.wqkv = take(file, kQkv * kWidth);
  w.wo = take(file, kWidth * kWidth);
  w.mlp_norm = take(file, kWidth);
  w.wgate = take(file, kInner * kWidth);
  w.wup = take(file, kInner * kWidth);
  w.wdown = take(file, kWidth * kInner);
  if (!file) return 2;
  block_instance* instance = nullptr;
  if (block_create(argv[1], 0, &instance) != ATTUNE_WRAPPED_OK) {
    std::printf("%s\n", block_last_error());
    return 1;
  }
  // A sum of 160 products loses a few units of 2^-24, thirteen steps after each other ten times that.
  constexpr double kAllowed = 4e-6;
  int failures = 0;
  struct Case {
    int64_t batch, length;
    bool own;
  };
  for (const Case& c :
       {Case{1, 1, false}, Case{2, 17, true}, Case{3, 64, false}, Case{1, 301, true}}) {
    const double error = run(instance, w, c.batch, c.length, c.own);
    std::printf("B = %d, S = %d: %.3g\n", static_cast<int>(c.batch), static_cast<int>(c.length),
                error);
    failures += error > kAllowed;
  }
  std::vector<std::thread> threads;
  double errors[4] = {};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] { errors[t] = run(instance, w, 1 + t, 40 + t, false); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const double error : errors) failures += error > kAllowed;
  block_destroy(instance);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
