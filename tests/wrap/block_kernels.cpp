// What the kernels of tests/wrap/block.json compute, in plain C++: the fallbacks of a program for the CPU.
#include <cmath>
#include <cstdint>

namespace {
float* floats(void* memory) { return static_cast<float*>(memory); }
}  // namespace

extern "C" {

// out = x / sqrt(mean(x^2) + epsilon) * weight, row by row.
int rms_norm_cpu(void*, void* x, void* weight, void* out, int32_t rows, int32_t columns,
                 float epsilon) {
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = floats(x) + row * columns;
    float squares = 0;
    for (int32_t i = 0; i < columns; ++i) squares += from[i] * from[i];
    const float scale = 1.0F / std::sqrt(squares / static_cast<float>(columns) + epsilon);
    for (int32_t i = 0; i < columns; ++i)
      floats(out)[row * columns + i] = from[i] * scale * floats(weight)[i];
  }
  return 0;
}

// out = x weight^T: x [rows, inner], weight [columns, inner].
int linear_cpu(void*, void* x, void* weight, void* out, int64_t rows, int32_t inner,
               int32_t columns) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int32_t column = 0; column < columns; ++column) {
      float sum = 0;
      for (int32_t i = 0; i < inner; ++i)
        sum += floats(x)[row * inner + i] * floats(weight)[int64_t{column} * inner + i];
      floats(out)[row * columns + column] = sum;
    }
  }
  return 0;
}

// Turns pairs (i, i + 8) of the first heads of each row by position * 10000^(-i / 8) (Su et al., RoFormer).
int rope_cpu(void*, void* x, int32_t batch, int32_t length, int32_t heads, int32_t row) {
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t s = 0; s < length; ++s) {
      for (int32_t head = 0; head < heads; ++head) {
        float* values = floats(x) + (b * length + s) * row + head * 16;
        for (int i = 0; i < 8; ++i) {
          const double angle = static_cast<double>(s) * std::pow(10000.0, -i / 8.0);
          const auto c = static_cast<float>(std::cos(angle)),
                     sine = static_cast<float>(std::sin(angle));
          const float a = values[i], z = values[i + 8];
          values[i] = a * c - z * sine;
          values[i + 8] = z * c + a * sine;
        }
      }
    }
  }
  return 0;
}

// out = gate * sigmoid(gate) * up
int silu_times_cpu(void*, void* gate, void* up, void* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = floats(gate)[i];
    floats(out)[i] = g / (1.0F + std::exp(-g)) * floats(up)[i];
  }
  return 0;
}

int add_cpu(void*, void* a, void* b, void* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) floats(out)[i] = floats(a)[i] + floats(b)[i];
  return 0;
}
}
