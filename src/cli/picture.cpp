#include "cli/picture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace attune::cli {
namespace {

constexpr int kGlyphWidth = 5;
constexpr int kGlyphHeight = 7;

struct Glyph {
  char letter;
  std::array<std::uint8_t, kGlyphHeight> rows;  // bit 4 is the leftmost pixel
};

constexpr std::array kGlyphs = {
    Glyph{'0', {0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110}},
    Glyph{'1', {0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110}},
    Glyph{'2', {0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111}},
    Glyph{'3', {0b01110, 0b10001, 0b00001, 0b00110, 0b00001, 0b10001, 0b01110}},
    Glyph{'4', {0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010}},
    Glyph{'5', {0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110}},
    Glyph{'6', {0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110}},
    Glyph{'7', {0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000}},
    Glyph{'8', {0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110}},
    Glyph{'9', {0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100}},
    Glyph{'-', {0b00000, 0b00000, 0b00000, 0b01110, 0b00000, 0b00000, 0b00000}},
    Glyph{'.', {0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100}},
    Glyph{'a', {0b00000, 0b00000, 0b01110, 0b00001, 0b01111, 0b10001, 0b01111}},
    Glyph{'d', {0b00001, 0b00001, 0b01111, 0b10001, 0b10001, 0b10001, 0b01111}},
    Glyph{'e', {0b00000, 0b00000, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110}},
    Glyph{'h', {0b10000, 0b10000, 0b11110, 0b10001, 0b10001, 0b10001, 0b10001}},
    Glyph{'k', {0b10000, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001}},
    Glyph{'q', {0b00000, 0b00000, 0b01111, 0b10001, 0b01111, 0b00001, 0b00001}},
    Glyph{'r', {0b00000, 0b00000, 0b10110, 0b11001, 0b10000, 0b10000, 0b10000}},
    Glyph{'u', {0b00000, 0b00000, 0b10001, 0b10001, 0b10001, 0b10011, 0b01101}},
    Glyph{'y', {0b00000, 0b00000, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110}},
};

// Calls body(column, row) for each dark pixel of the label.
template <typename Body>
void for_each_dot(std::string_view label, Body body) {
  int left = 0;
  for (const char letter : label) {
    for (const Glyph& glyph : kGlyphs) {
      if (glyph.letter != letter) continue;
      for (int row = 0; row < kGlyphHeight; ++row) {
        for (int column = 0; column < kGlyphWidth; ++column) {
          if ((glyph.rows[static_cast<std::size_t>(row)] >> (kGlyphWidth - 1 - column) & 1) != 0) {
            body(left + column, row);
          }
        }
      }
    }
    left += kGlyphWidth + 1;
  }
}

}  // namespace

Colour scale_colour(double value) {
  constexpr std::array<std::array<double, 3>, 9> kAnchors = {{{68, 1, 84},
                                                              {71, 44, 122},
                                                              {59, 81, 139},
                                                              {44, 113, 142},
                                                              {33, 144, 141},
                                                              {39, 173, 129},
                                                              {92, 200, 99},
                                                              {170, 220, 50},
                                                              {253, 231, 37}}};
  const double last = static_cast<double>(kAnchors.size() - 1);
  const double at = std::clamp(value, 0.0, 1.0) * last;
  const auto below = std::min(static_cast<std::size_t>(at), kAnchors.size() - 2);
  const double part = at - static_cast<double>(below);
  const auto mix = [&](std::size_t channel) {
    const double mixed =
        kAnchors[below][channel] * (1 - part) + kAnchors[below + 1][channel] * part;
    return static_cast<std::uint8_t>(std::lround(mixed));
  };
  return {mix(0), mix(1), mix(2)};
}

Picture::Picture(int width, int height)
    : width_(width),
      height_(height),
      pixels_(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3, 255) {}

void Picture::fill(int x, int y, int width, int height, Colour colour) {
  const int right = std::min(width_, x + width);
  const int bottom = std::min(height_, y + height);
  for (int row = std::max(0, y); row < bottom; ++row) {
    for (int column = std::max(0, x); column < right; ++column) {
      std::uint8_t* pixel =
          pixels_.data() + (static_cast<std::size_t>(row) * static_cast<std::size_t>(width_) +
                            static_cast<std::size_t>(column)) *
                               3;
      pixel[0] = colour.r;
      pixel[1] = colour.g;
      pixel[2] = colour.b;
    }
  }
}

void Picture::text(int x, int y, std::string_view label, int pixel) {
  for_each_dot(label, [&](int column, int row) {
    fill(x + column * pixel, y + row * pixel, pixel, pixel, kInk);
  });
}

void Picture::text_upwards(int x, int y, std::string_view label, int pixel) {
  for_each_dot(label, [&](int column, int row) {
    fill(x + row * pixel, y - (column + 1) * pixel, pixel, pixel, kInk);
  });
}

int Picture::text_width(std::string_view label, int pixel) {
  return std::max(0, static_cast<int>(label.size()) * (kGlyphWidth + 1) - 1) * pixel;
}

int Picture::text_height(int pixel) { return kGlyphHeight * pixel; }

}  // namespace attune::cli
