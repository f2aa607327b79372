// `attune map`: the attention probabilities of one head as a picture.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <algorithm>
#include <attune/arguments.hpp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/options.h"
#include "cli/outputs.h"
#include "cli/picture.h"
#include "cli/png.h"
#include "cli/progress.h"
#include "oracle/arithmetic.h"
#include "oracle/forward.h"
#include "oracle/layout.h"

namespace attune::cli {
namespace {

constexpr int kTarget = 900;  // pixels that the longer side of the matrix gets, roughly
constexpr int kTick = 6;
constexpr double kMasked = -1;  // in a cell: no query here sees a key here

struct MapOptions {
  AttentionOptions attention;
  std::string out;
  std::string colours = "log";
  std::int64_t head = 0;
  std::int64_t batch = 0;
  bool json = false;
};

// How one side of the matrix is drawn: several keys a cell when there are more keys than pixels,
// several pixels a cell when there are fewer.
struct Side {
  std::int64_t count = 0;  // queries or keys
  std::int64_t per_cell = 1;
  int cells = 0;
  int pixels_per_cell = 1;
  [[nodiscard]] int pixels() const { return cells * pixels_per_cell; }
  [[nodiscard]] int cell_of(std::int64_t index) const { return static_cast<int>(index / per_cell); }
};

Side make_side(std::int64_t count) {
  Side side;
  side.count = count;
  side.per_cell = (count + kTarget - 1) / kTarget;
  side.cells = static_cast<int>((count + side.per_cell - 1) / side.per_cell);
  side.pixels_per_cell = std::max(1, kTarget / side.cells);
  return side;
}

// Square cells, unless that would leave a narrow strip.
void make_alike(Side& a, Side& b) {
  Side& longer = a.count >= b.count ? a : b;
  Side& shorter = a.count >= b.count ? b : a;
  if (longer.count > shorter.count * 4) return;
  shorter.per_cell = longer.per_cell;
  shorter.cells = static_cast<int>((shorter.count + shorter.per_cell - 1) / shorter.per_cell);
  shorter.pixels_per_cell = longer.pixels_per_cell;
}

struct Heatmap {
  Side queries, keys;
  std::vector<double> cells;  // the largest probability of each; kMasked where there is none
  double largest = 0;
  double least_row_sum = 1;  // over the rows that attend to anything
};

Heatmap probabilities(const oracle::Layout& layout, std::int64_t b, std::int64_t head) {
  const Problem& problem = *layout.problem;
  Heatmap map;
  map.queries = make_side(layout.queries(b));
  map.keys = make_side(layout.keys(b));
  make_alike(map.queries, map.keys);
  map.cells.assign(
      static_cast<std::size_t>(map.queries.cells) * static_cast<std::size_t>(map.keys.cells),
      kMasked);
  const auto keys_values =
      oracle::gather<oracle::Exact>(layout, b, head / (problem.hq / problem.hkv));
  Progress progress("attention map", map.queries.count);
  oracle::Row<double> row;
  row.b = b;
  row.h = head;
  for (row.i = 0; row.i < map.queries.count; ++row.i) {
    oracle::forward_row<oracle::Exact>(layout, keys_values, row);
    double* cells =
        map.cells.data() + static_cast<std::int64_t>(map.queries.cell_of(row.i)) * map.keys.cells;
    double sum = 0;
    for (std::size_t n = 0; n < row.keys.size(); ++n) {
      double& cell = cells[map.keys.cell_of(row.keys[n])];
      cell = std::max(cell, row.p[n]);
      sum += row.p[n];
      map.largest = std::max(map.largest, row.p[n]);
    }
    if (!row.keys.empty()) map.least_row_sum = std::min(map.least_row_sum, sum);
    progress.advance();
  }
  return map;
}

// From a probability to a place on the colour scale.
struct Scale {
  bool logarithmic = true;
  int decades = 4;  // of the logarithmic scale; what is below its foot has the foot's colour

  [[nodiscard]] double place(double p) const {
    if (!logarithmic) return std::sqrt(p);
    return p > 0 ? 1 + std::log10(p) / decades : 0;
  }
};

// The foot lies a decade below an even spread over all keys.
Scale make_scale(const std::string& colours, std::int64_t keys) {
  Scale scale;
  scale.logarithmic = colours == "log";
  scale.decades =
      std::clamp(static_cast<int>(std::ceil(std::log10(10.0 * static_cast<double>(keys)))), 3, 9);
  return scale;
}

// 1, 2 or 5 times a power of ten, for at most about eight ticks.
std::int64_t tick_step(std::int64_t count) {
  std::int64_t power = 1;
  for (;; power *= 10) {
    for (const std::int64_t factor : {1, 2, 5}) {
      if (count / (power * factor) <= 8) return power * factor;
    }
  }
}

void draw_ticks(Picture& picture, const Side& side, int left, int top, bool across) {
  const std::int64_t step = tick_step(side.count);
  for (std::int64_t at = 0; at < side.count; at += step) {
    const int offset = side.cell_of(at) * side.pixels_per_cell + side.pixels_per_cell / 2;
    const std::string label = std::to_string(at);
    const int width = Picture::text_width(label);
    if (across) {
      picture.fill(left + offset, top - kTick, 1, kTick, kInk);
      picture.text(left + offset - width / 2, top - kTick - 4 - Picture::text_height(), label);
    } else {
      picture.fill(left - kTick, top + offset, kTick, 1, kInk);
      picture.text(left - kTick - 4 - width, top + offset - Picture::text_height() / 2, label);
    }
  }
}

void draw_colour_bar(Picture& picture, const Scale& scale, int left, int top, int height) {
  constexpr int kWidth = 22;
  for (int y = 0; y < height; ++y) {
    picture.fill(left, top + y, kWidth, 1, scale_colour(1 - (y + 0.5) / height));
  }
  const auto mark = [&](double probability, const std::string& label) {
    const int y = top + static_cast<int>((1 - scale.place(probability)) * (height - 1));
    picture.fill(left + kWidth, y, kTick, 1, kInk);
    picture.text(left + kWidth + kTick + 4, y - Picture::text_height() / 2, label);
  };
  if (scale.logarithmic) {
    mark(1, "1");
    for (int decade = 1; decade <= scale.decades; ++decade) {
      mark(std::pow(10.0, -decade), fmt::format("1e-{}", decade));
    }
  } else {
    for (const double p : {0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0}) mark(p, fmt::format("{:g}", p));
  }
}

Picture draw(const Heatmap& map, const Scale& scale, std::int64_t head) {
  constexpr int kLeft = 96;
  constexpr int kTop = 64;
  constexpr int kRight = 130;
  constexpr int kBottom = 24;
  constexpr int kLeastHeight = 200;  // so that the labels of the colour bar don't overlap
  const int width = map.keys.pixels();
  const int height = map.queries.pixels();
  const int bar = std::max(height, kLeastHeight);
  Picture picture(kLeft + width + kRight, kTop + bar + kBottom);
  picture.fill(kLeft - 1, kTop - 1, width + 2, height + 2, kInk);
  for (int y = 0; y < map.queries.cells; ++y) {
    for (int x = 0; x < map.keys.cells; ++x) {
      const double p =
          map.cells[static_cast<std::size_t>(y) * static_cast<std::size_t>(map.keys.cells) +
                    static_cast<std::size_t>(x)];
      picture.fill(kLeft + x * map.keys.pixels_per_cell, kTop + y * map.queries.pixels_per_cell,
                   map.keys.pixels_per_cell, map.queries.pixels_per_cell,
                   p == kMasked ? kNothing : scale_colour(scale.place(p)));
    }
  }
  draw_ticks(picture, map.keys, kLeft, kTop, true);
  draw_ticks(picture, map.queries, kLeft, kTop, false);
  picture.text(kLeft + (width - Picture::text_width("key")) / 2, 8, "key");
  picture.text_upwards(8, kTop + (height + Picture::text_width("query")) / 2, "query");
  picture.text(8, 8, fmt::format("head {}", head), 2);
  draw_colour_bar(picture, scale, kLeft + width + 26, kTop, bar);
  return picture;
}

// The inputs may have been given for the forward problem only; outputs are not wanted here.
Expected<Heatmap> compute(const MapOptions& options, Inputs& inputs) {
  Problem problem = inputs.problem;
  Arguments arguments = inputs.arguments;
  arguments.grad_o = {};
  arguments.grad_lse = {};
  if (Status status = validate(problem); !status.ok()) return status;
  const auto outputs = allocate_outputs(problem, inputs.bhsd, arguments);
  if (!outputs.ok()) return outputs.status();
  if (Status status = check(problem, arguments); !status.ok()) return status;
  const auto outside = [](const char* name, std::int64_t value, std::int64_t count) {
    return Status(Code::invalid_argument,
                  fmt::format("--{} {}: there are {}, counted from 0", name, value, count));
  };
  if (options.head < 0 || options.head >= problem.hq) {
    return outside("head", options.head, problem.hq);
  }
  if (options.batch < 0 || options.batch >= problem.b) {
    return outside("batch", options.batch, problem.b);
  }
  const auto layout = oracle::make_layout(problem, arguments);
  if (!layout.ok()) return layout.status();
  if (layout->queries(options.batch) == 0 || layout->keys(options.batch) == 0) {
    return Status(
        Code::invalid_argument,
        fmt::format("sequence {} has {} queries and {} keys: there is nothing to draw",
                    options.batch, layout->queries(options.batch), layout->keys(options.batch)));
  }
  return probabilities(*layout, options.batch, options.head);
}

int run(const MapOptions& options) {
  if (options.out.size() < 4 || options.out.compare(options.out.size() - 4, 4, ".png") != 0) {
    return bad_usage(
        fmt::format("-o {}: the picture is a PNG, so its name has to end in .png", options.out));
  }
  if (const auto mask = mask_from(options.attention); !mask.ok()) {
    return bad_usage(mask.status().message());
  }
  auto inputs = read_inputs(options.attention);
  if (!inputs.ok()) return refuse(inputs.status());
  const auto map = compute(options, *inputs);
  if (!map.ok()) return refuse(map.status());
  const Scale scale = make_scale(options.colours, map->keys.count);
  const Picture picture = draw(*map, scale, options.head);
  if (const Status status =
          write_png(options.out, picture.width(), picture.height(), picture.rgb());
      !status.ok()) {
    return refuse(status);
  }
  if (options.json) {
    const nlohmann::json json = {{"problem", print(inputs->problem)},
                                 {"head", options.head},
                                 {"batch", options.batch},
                                 {"queries", map->queries.count},
                                 {"keys", map->keys.count},
                                 {"largest", map->largest},
                                 {"picture", options.out},
                                 {"width", picture.width()},
                                 {"height", picture.height()}};
    fmt::print("{}\n", json.dump(2));
    return kOk;
  }
  fmt::print("{}\n", print(inputs->problem));
  fmt::print(
      "  map        head {} of sequence {}, {} queries x {} keys; the largest probability is "
      "{:.3g}\n",
      options.head, options.batch, map->queries.count, map->keys.count, map->largest);
  if (map->keys.per_cell > 1 || map->queries.per_cell > 1) {
    fmt::print("  cells      {} queries x {} keys each, coloured by their largest probability\n",
               map->queries.per_cell, map->keys.per_cell);
  }
  for (const std::string& note : inputs->notes) fmt::print("  note       {}\n", note);
  fmt::print("  wrote      {} ({} x {} pixels, {} colours; grey is masked out)\n", options.out,
             picture.width(), picture.height(), options.colours);
  return kOk;
}

}  // namespace

Command add_map(CLI::App& app) {
  auto options = std::make_shared<MapOptions>();
  CLI::App* sub = app.add_subcommand("map", "Draw the attention probabilities of one head");
  add_attention_options(*sub, options->attention);
  sub->add_option("--head", options->head, "Query head, counted from 0")
      ->type_name("H")
      ->capture_default_str();
  sub->add_option("--batch", options->batch, "Sequence, counted from 0")
      ->type_name("B")
      ->capture_default_str();
  sub->add_option("--colours,--colors", options->colours, "Scale of the colours")
      ->check(CLI::IsMember({"log", "sqrt"}))
      ->capture_default_str();
  sub->add_option("-o,--output", options->out, "The picture, a .png")->type_name("OUT")->required();
  sub->add_flag("--json", options->json, "Print JSON");
  sub->footer(
      "The probabilities are the oracle's, in float64 and before dropout.\n"
      "Example:\n"
      "  attune map qkv.safetensors --prefix layer0. --head 3 --mask causal-top-left -o map.png");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
