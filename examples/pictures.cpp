// The pictures of docs/algorithm.md and docs/experiments.md: each from the functions it explains,
// at most a screen of code.
//
//   pictures [FOLDER]        writes them there (default docs/pictures)

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "ppma/data/paths.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/image.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/masks.hpp"
#include "ppma/polyline/path.hpp"
#include "ppma/vis/curve.hpp"
#include "ppma/vis/panels.hpp"

using namespace ppma;

namespace {

constexpr Color orange{213, 94, 0}, blue{0, 114, 178};

// 1. The decay as a function of the evidence z, for four biases. (decay_curve.png)
Picture decay_curve() {
  std::vector<Series> lines;
  for (const double bias : {-6.9, -4.6, -2.25, 0.0}) {
    Series s{"b = " + short_number(bias), {}, {}};
    for (double z = -4; z <= 10; z += 0.1) {
      const double softplus = std::fmax(z + bias, 0) + std::log1p(std::exp(-std::fabs(z + bias)));
      s.x.push_back(z), s.y.push_back(std::exp(-1.05 * softplus));
    }
    lines.push_back(s);
  }
  return curves(lines, {.title = "A decay: exp(\u2212A softplus(z + b)), A = 1.05",
                        .x_label = "evidence z",
                        .y_label = "decay",
                        .width = 640,
                        .height = 320,
                        .y_range = Range{0, 1}});
}

// 2. Both paths on a grid whose edges show their decays. (paths.png)
Picture both_paths() {
  const i64 h = 6, w = 9;
  const Cell key{4, 1}, query{1, 7};
  const double step = 62, x0 = 50, y0 = 40;
  Picture p(static_cast<i64>(x0 * 2 + step * (w - 1)), static_cast<i64>(y0 * 2 + step * (h - 1)));
  const auto x = [&](i64 j) { return x0 + step * static_cast<double>(j); };
  const auto y = [&](i64 i) { return y0 + step * static_cast<double>(i); };
  // A wall between columns 4 and 5 down to row 3: its edges let little through.
  const auto wall = [](i64 i, i64 j) { return j == 5 && i <= 3; };
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < w; ++j) {
      const Color open{190, 190, 190};
      if (j > 0)
        p.line({x(j - 1), y(i), x(j), y(i)}, wall(i, j) ? 1.2 : 5, open, wall(i, j) ? 0.6 : 0.55);
      if (i > 0) p.line({x(j), y(i - 1), x(j), y(i)}, 5, open, 0.55);
    }
  p.line({x(4) + step / 2, y(0) - 20, x(4) + step / 2, y(3) + 26}, 3, signal_red, 0.75);
  const auto draw = [&](Paths path, Color color, double shift) {
    std::vector<double> xy;
    for (const Cell c : polyline_path(key, query, path))
      xy.push_back(x(c.column) + shift), xy.push_back(y(c.row) + shift);
    p.line(xy, 5, color);
  };
  draw(Paths::v2h, blue, 0), draw(Paths::h2v, orange, 0);
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < w; ++j) p.dot(x(j), y(i), 6, Color{120, 120, 120});
  for (const auto& [cell, name] : {std::pair{key, "key"}, std::pair{query, "query"}}) {
    p.dot(x(cell.column), y(cell.row), 13, ink);
    p.text(x(cell.column) + (cell == key ? -18 : 0), y(cell.row) + (cell == key ? 30 : -20), name,
           12, ink, Align::center);
  }
  p.text(x(1) + 8, y(1) - 12, "V2H: column, then row", 10.5, blue);
  p.text(x(2) - 8, y(4) + 26, "H2V: row, then column", 10.5, orange);
  return p;
}

// 3. The 1-D mask of a line with one edge that is nearly closed. (line_mask.png)
Picture line_mask() {
  const i64 n = 32;
  std::vector<double> closed(32, std::log(0.97)), even(32, std::log(0.9)), three = closed;
  closed[20] = std::log(0.1);
  three[8] = three[14] = three[24] = std::log(0.3);
  const auto mask = [n](const std::vector<double>& logs) {
    return exp(sequence_log_mask(Tensor::from<double>(logs, Shape{n})));
  };
  const Range whole{0, 1};
  return panels({{map_panel("all decays 0.9", mask(even), ColorMap::viridis, whole),
                  map_panel("0.97, one edge 0.1", mask(closed), ColorMap::viridis, whole),
                  map_panel("0.97, three edges 0.3", mask(three), ColorMap::viridis, whole)}},
                {.size = 220});
}

// A generated scene on a token grid: decays of 0.97 within a region, 0.25 across a contour.
struct GridScene {
  Tensor image;   // uint8 (S,S,3)
  Tensor decays;  // (2,1,1,n,n)
  Cell query{};   // on the main figure
};
GridScene grid_scene(i64 n, i64 index) {
  const i64 size = n * 12;
  const Scene scene = draw_shapes(
      {.height = size, .width = size, .seed = 1, .split = Split::test, .most_clutter = 0}, index);
  const auto region = [&](i64 i, i64 j) {
    for (i64 k = 0; k < scene.masks.dim(0); ++k)
      if (scene.masks.data<u8>()[(k * size + i * 12 + 6) * size + j * 12 + 6] != 0) return k + 1;
    return i64{0};
  };
  std::vector<double> alpha, beta;
  GridScene out{scene.image, {}, {}};
  double best = 1e9, row = 0, column = 0, count = 0;
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < n; ++j) {
      alpha.push_back(std::log(j > 0 && region(i, j) != region(i, j - 1) ? 0.25 : 0.97));
      beta.push_back(std::log(i > 0 && region(i, j) != region(i - 1, j) ? 0.25 : 0.97));
      if (region(i, j) == 1)
        row += static_cast<double>(i), column += static_cast<double>(j), ++count;
    }
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < n; ++j)
      if (const double d = std::hypot(static_cast<double>(i) - row / count,
                                      static_cast<double>(j) - column / count);
          region(i, j) == 1 && d < best)
        best = d, out.query = {i, j};
  out.decays = join_decays(Tensor::from<double>(alpha, {1, 1, n, n}),
                           Tensor::from<double>(beta, {1, 1, n, n}));
  return out;
}

// The row of a query in a map (1,1,N,N), on the grid.
Tensor row_of(const Tensor& map, Cell query, i64 n) {
  return reshape(narrow(reshape(map, {n * n, n * n}), 0, query.row * n + query.column, 1), {n, n});
}

Panel marked(Panel p, Cell query, i64 n) {
  p.marked = GridCell{query.row, query.column, n, n};
  return p;
}

// 4. The masks of the ablation for one query of two scenes. (masks.png)
Picture all_masks() {
  const i64 n = 28;
  std::vector<std::vector<Panel>> rows;
  for (const i64 index : {22, 11}) {
    const GridScene s = grid_scene(n, index);
    const auto title = [&](const char* words) { return rows.empty() ? words : ""; };
    std::vector<Panel> row{image_panel(title("scene, query"), s.image)};
    const Tensor fixed =
        constant_log_decay(Tensor::from<double>({std::log(0.9)}, Shape{1}), 1, n, n);
    for (const auto& [kind, name] :
         {std::pair{MaskKind::rmt, "RMT: 0.9 a step"},
          std::pair{MaskKind::cross_scan, "cross scan"},
          std::pair{MaskKind::hilbert, "Hilbert scan"}, std::pair{MaskKind::v2h, "V2H polyline"},
          std::pair{MaskKind::polyline, "2-D polyline"}}) {
      const auto logs = ablation_log_masks(kind, kind == MaskKind::rmt ? fixed : s.decays);
      Tensor mean;
      for (const Tensor& m : logs) mean = mean.defined() ? mean + exp(m) : exp(m);
      mean = scale(mean, 1.0 / static_cast<double>(logs.size()));
      row.push_back(
          map_panel(title(name), row_of(mean, s.query, n), ColorMap::viridis, Range{0, 1}));
    }
    for (Panel& p : row) p = marked(p, s.query, n);
    rows.push_back(row);
  }
  return panels(rows, {.size = 196});
}

// 5. y = L x by two sweeps: down the columns, then along the rows. (scans.png)
Picture scans() {
  const i64 n = 28;
  const GridScene s = grid_scene(n, 22);
  Tensor x = Tensor::zeros({1, n, n, 1}, DType::f64);
  x.data<double>()[s.query.row * n + s.query.column] = 1;
  const auto by_token = [n](const Tensor& logs) { return reshape(logs, {1, n, n, 1}); };
  const Tensor z = decay_scan(x, by_token(log_beta_of(s.decays)), 1),
               y = decay_scan(z, by_token(log_alpha_of(s.decays)), 2);
  const auto panel = [n](const char* title, const Tensor& t) {
    return map_panel(title, reshape(t, {n, n}), ColorMap::viridis, Range{0, 1});
  };
  return panels({{image_panel("scene", s.image), panel("x: one token", x),
                  panel("z: scanned down its column", z), panel("y: scanned along all rows", y)}},
                {.size = 224});
}

// 6. What a query takes from each token where all scores are equal: whole attention, and the two
// orders of criss-cross attention with their mean. (criss_cross.png)
Picture criss_cross() {
  const i64 n = 28, tokens = n * n;
  const GridScene s = grid_scene(n, 22);
  const Tensor zero = Tensor::zeros({1, n, n, tokens}, DType::f64);
  Tensor identity = Tensor::zeros({1, n, n, tokens}, DType::f64);  // token u holds the u-th unit
  for (i64 u = 0; u < tokens; ++u) identity.data<double>()[u * tokens + u] = 1;
  const auto taken = [&](const Tensor& y) { return row_of(y, s.query, n); };
  const auto crossed = [&](Order order) {
    return taken(criss_cross_attention_composed(zero, zero, identity, 1, s.decays, order));
  };
  const auto panel = [&](const char* title, const Tensor& t) {
    return marked(map_panel(title, t), s.query, n);
  };
  return panels({{panel("whole attention",
                        taken(whole_attention_composed(zero, zero, identity, 1, s.decays))),
                  panel("rows, then columns", crossed(Order::rows_first)),
                  panel("columns, then rows", crossed(Order::columns_first)),
                  panel("criss-cross: their mean", crossed(Order::both))}},
                {.size = 224});
}

// 7. The questions of the set `paths`, each easy and hard, answered no and yes. (paths_set.png)
Picture questions() {
  std::vector<std::vector<Panel>> rows;
  for (const PathsTask task : {PathsTask::region, PathsTask::curve, PathsTask::colour}) {
    std::vector<Panel>& row = rows.emplace_back();
    for (const i64 difficulty : {1, 4})
      for (const i64 number : {2, 5}) {
        const PathsScene scene =
            draw_paths({.task = task, .difficulty = difficulty, .size = 192}, number);
        row.push_back(image_panel(str(to_string(task), ", difficulty ", difficulty, ": ",
                                      scene.label == 1 ? "yes" : "no"),
                                  scene.image));
      }
  }
  return panels(rows, {.size = 192});
}

}  // namespace

int main(int argc, char** argv) try {
  const std::filesystem::path folder = argc > 1 ? argv[1] : "docs/pictures";
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const Picture& p) {
    write_png((folder / name).string(), p.image());
    std::printf("%s\n", (folder / name).string().c_str());
  };
  write("decay_curve.png", decay_curve());
  write("paths.png", both_paths());
  write("line_mask.png", line_mask());
  write("masks.png", all_masks());
  write("scans.png", scans());
  write("criss_cross.png", criss_cross());
  write("paths_set.png", questions());
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
