// A small canvas: rectangles, colours of a scale, and short labels.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace attune::cli {

struct Colour {
  std::uint8_t r = 255, g = 255, b = 255;
};

inline constexpr Colour kWhite{255, 255, 255};
inline constexpr Colour kInk{40, 40, 40};
inline constexpr Colour kNothing{232, 232, 232};  // of cells that have no value

// A perceptual scale from dark violet (0) over green to yellow (1), by interpolation between
// anchors of matplotlib's viridis. Values outside are clamped.
[[nodiscard]] Colour scale_colour(double value);

class Picture {
 public:
  Picture(int width, int height);

  // Clipped to the picture.
  void fill(int x, int y, int width, int height, Colour colour);
  // Digits, "-", "." and the letters of "query", "key" and "head"; others are blank.
  void text(int x, int y, std::string_view label, int pixel = 2);
  // The same from the bottom up.
  void text_upwards(int x, int y, std::string_view label, int pixel = 2);
  [[nodiscard]] static int text_width(std::string_view label, int pixel = 2);
  [[nodiscard]] static int text_height(int pixel = 2);

  [[nodiscard]] int width() const { return width_; }
  [[nodiscard]] int height() const { return height_; }
  [[nodiscard]] std::span<const std::uint8_t> rgb() const { return pixels_; }

 private:
  int width_;
  int height_;
  std::vector<std::uint8_t> pixels_;  // 3 bytes a pixel, rows from the top
};

}  // namespace attune::cli
