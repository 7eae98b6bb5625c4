// Ops of dense prediction: resizing, RoIAlign, transposed convolution.
#include <cmath>

#include "op_cases/op_case.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/conv_resized.hpp"
#include "ppma/ops/conv_transpose.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/resize.hpp"
#include "ppma/ops/resized_loss.hpp"
#include "ppma/ops/roi_align.hpp"

using namespace op_cases;

namespace {
// Inside, over the border, outside, and smaller than a cell.
Tensor boxes(const Tensor& like) {
  const Tensor b = Tensor::from<double>(
      {0, 1.5, 2, 11, 9, 1, -4, -3, 7.25, 5, 0, 20, 1, 30, 40, 1, 3, 3, 3.5, 3.25}, {4, 5});
  Tensor same = Tensor::empty(b.shape(), accumulator_dtype(like.dtype()));
  same.copy_from(b);
  return same.to(like.device());
}

// Element (row, column, channel) of a map of h x w x c numbers, resized to 2^k times as many as it
// has where it is read; 0 outside.
struct PlainMap {
  const std::vector<double>& x;
  int h, w, c, rows, cols;
  double at(int i, int j, int k) const {
    if (i < 0 || j < 0 || i >= rows || j >= cols) return 0;
    const auto source = [](int o, int size, int n) {
      return std::max(0.0, (o + 0.5) * size / n - 0.5);
    };
    const double y = source(i, h, rows), z = source(j, w, cols);
    const int top = std::min(h - 1, static_cast<int>(y)),
              left = std::min(w - 1, static_cast<int>(z)), bottom = std::min(h - 1, top + 1),
              right = std::min(w - 1, left + 1);
    const auto v = [&](int a, int b) { return x[static_cast<std::size_t>((a * w + b) * c + k)]; };
    const double down = y - top, across = z - left;
    return (1 - down) * ((1 - across) * v(top, left) + across * v(top, right)) +
           down * ((1 - across) * v(bottom, left) + across * v(bottom, right));
  }
};

// conv2d_of_resized of maps (1,4,6,2), (1,2,3,1) and (1,1,2,3) with w (2,6,3,3).
std::vector<double> convolved_maps(const op_cases::Lists& in) {
  const PlainMap maps[3] = {{in[0], 4, 6, 2, 4, 6}, {in[1], 2, 3, 1, 4, 6}, {in[2], 1, 2, 3, 4, 6}};
  std::vector<double> y;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 6; ++j)
      for (int o = 0; o < 2; ++o) {
        double sum = 0;
        int channel = 0;
        for (const PlainMap& map : maps)
          for (int k = 0; k < map.c; ++k, ++channel)
            for (int tap = 0; tap < 9; ++tap)
              sum += in[3][static_cast<std::size_t>((o * 6 + channel) * 9 + tap)] *
                     map.at(i + tap / 3 - 1, j + tap % 3 - 1, k);
        y.push_back(sum);
      }
  return y;
}

// Labels (1,4,6) of three classes; every fifth pixel is ignored.
Tensor pixel_labels(const Tensor& like) {
  std::vector<i64> labels;
  for (i64 i = 0; i < 24; ++i) labels.push_back(i % 5 == 4 ? 255 : i * i % 3);
  return Tensor::from<i64>(labels, {1, 4, 6}).to(like.device());
}

// resized_cross_entropy of logits (1,2,3,3) and those labels.
std::vector<double> resized_loss(const op_cases::Lists& in) {
  const PlainMap logits{in[0], 2, 3, 3, 4, 6};
  double loss = 0;
  for (int i = 0; i < 24; ++i) {
    if (i % 5 == 4) continue;
    double sum = 0;
    for (int k = 0; k < 3; ++k) sum += std::exp(logits.at(i / 6, i % 6, k));
    loss += std::log(sum) - logits.at(i / 6, i % 6, i * i % 3);
  }
  return {loss / 24};
}

// x times the accuracy of four pixels, of which one is ignored and one is wrong.
Tensor times_accuracy(In x) {
  const Tensor logits = Tensor::from<double>({1, 2, 4, 3, 0, 9, 5, 0}, {1, 2, 2, 2}),
               labels = Tensor::from<i64>({1, 1, 255, 0}, {1, 2, 2});
  const Tensor percent =
      pixel_accuracy(cast(logits, x[0].dtype()).to(x[0].device()), labels.to(x[0].device()), 255);
  return mul(x[0], cast(percent, x[0].dtype()));
}

// resize of each of the nine maps of z (1,2,3,9,2), where its tap sees it, and y (1,5,4,2).
std::vector<double> added_taps(const op_cases::Lists& in) {
  const PlainMap z{in[1], 2, 3, 18, 5, 4};
  std::vector<double> y = in[0];
  for (int at = 0; at < 40; ++at)
    for (int tap = 0; tap < 9; ++tap)
      y[static_cast<std::size_t>(at)] +=
          z.at(at / 8 + tap / 3 - 1, at / 2 % 4 + tap % 3 - 1, tap * 2 + at % 2);
  return y;
}
}  // namespace

TEST_CASE("conv2d_of_resized is a convolution of the resized maps together") {
  Rng rng(4);
  const auto map = [&](i64 h, i64 w, i64 c) {
    return Tensor::randn({2, h, w, c}, rng, 1, DType::f64).requires_grad(true);
  };
  // 1 to 5 maps: on a GPU three go at once, or one; larger than the grid, as large, a single cell
  const std::vector<Tensor> all{map(8, 12, 8), map(4, 6, 4),   map(2, 3, 8),
                                map(1, 1, 4),  map(16, 13, 8), map(8, 12, 4)};
  for (std::size_t count = 1; count <= all.size(); ++count) {
    const std::vector<Tensor> maps(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count));
    i64 channels = 0;
    std::vector<Tensor> resized;
    for (const Tensor& x : maps) channels += x.dim(3), resized.push_back(resize(x, 8, 12));
    const Tensor w = Tensor::randn({8, channels, 3, 3}, rng, 1, DType::f64);
    const Tensor got = conv2d_of_resized(maps, w),
                 want = conv2d(concat(resized, -1), w, Tensor(), {1, 1, 1});
    for (i64 i = 0; i < want.numel(); ++i)
      CHECK(got.data<double>()[i] == Approx(want.data<double>()[i]).margin(1e-11));
  }
}

TEST_CASE("op table: dense prediction") {
  check_table({
      {"resize", [](In x) { return resize(x[0], 7, 5); }, "resize: the output grid is 0 x 2",
       [] {
         resize(zeros({1, 4, 4, 1}), 0, 2);
       }},
      {"resize/smaller", [](In x) { return resize(x[0], 3, 4); }, "", {}},
      {"resize/align corners",
       [](In x) { return resize(x[0], 7, 5, Resize::bilinear_align_corners); },
       "",
       {}},
      {"resize/align corners, one",
       [](In x) { return resize(x[0], 1, 4, Resize::bilinear_align_corners); },
       "",
       {}},
      {"resize/nearest", [](In x) { return resize(x[0], 7, 5, Resize::nearest); }, "", {}},
      {"resize/nearest, smaller", [](In x) { return resize(x[0], 3, 4, Resize::nearest); }, "", {}},
      {"conv2d_of_resized",
       [](In x) {
         return conv2d_of_resized({x[0], x[1], x[2]}, x[3]);
       },
       "conv2d_of_resized: w must be (O,5,3,3), got (2, 4, 3, 3)",
       [] {
         conv2d_of_resized({zeros({1, 4, 4, 2}), zeros({1, 2, 2, 3})}, zeros({2, 4, 3, 3}));
       },
       {3},
       Plain{{{{1, 4, 6, 2}}, {{1, 2, 3, 1}}, {{1, 1, 2, 3}}, {{2, 6, 3, 3}}},
             {1, 4, 6, 2},
             convolved_maps}},
      {"add_resized_taps",
       [](In x) { return add_resized_taps(x[0], {x[1]}); },
       "add_resized_taps: beside y (1, 4, 4, 2) a z must be (1,h,w,9,2), got (1, 2, 2, 9, 1)",
       [] {
         add_resized_taps(zeros({1, 4, 4, 2}), {zeros({1, 2, 2, 9, 1})});
       },
       {},
       Plain{{{{1, 5, 4, 2}}, {{1, 2, 3, 9, 2}}}, {1, 5, 4, 2}, added_taps}},
      {"resized_cross_entropy",
       [](In x) { return resized_cross_entropy(x[0], pixel_labels(x[0]), 255).loss; },
       "resized_cross_entropy: labels must be (B,H,W) int64, got (4, 4)",
       [] {
         resized_cross_entropy(zeros({1, 2, 2, 3}), int64s({4, 4}), 255);
       },
       {},
       Plain{{{{1, 2, 3, 3}}}, {}, resized_loss}},
      {"pixel_accuracy",
       times_accuracy,
       "argmax: the argument is an undefined tensor",
       [] {
         pixel_accuracy(Tensor(), int64s({1, 2, 2}), 255);
       },
       {},
       Plain{{{{2, 2}}},
             {2, 2},
             [](const op_cases::Lists& in) {
               std::vector<double> y;
               for (const double v : in[0]) y.push_back(v * 100 * (2 + 1e-7) / (3 + 1e-7));
               return y;
             }}},
      {"roi_align",
       [](In x) {
         return roi_align(x[0], boxes(x[0]), {3, 2, 0.5, 0});
       },
       "roi_align: boxes must be (R,5): image, x1, y1, x2, y2, got (2, 4)",
       [] {
         roi_align(zeros({1, 4, 4, 1}), zeros({2, 4}), {});
       }},
      {"roi_align/fixed",
       [](In x) {
         return roi_align(x[0], boxes(x[0]), {2, 3, 0.25, 2});
       },
       "roi_align: box 0 is of image 1, the batch has 1",
       [] {
         roi_align(zeros({1, 4, 4, 1}), Tensor::ones({1, 5}, DType::f64), {});
       }},
      {"conv_transpose2d",
       [](In x) { return conv_transpose2d(x[0], x[1], x[2]); },
       "conv_transpose2d: w must be (3,O/groups,kh,kw), got (2, 3, 2, 2)",
       [] {
         conv_transpose2d(zeros({1, 4, 4, 3}), zeros({2, 3, 2, 2}));
       },
       {1, 2}},
      {"conv_transpose2d/padded",
       [](In x) {
         return conv_transpose2d(x[0], x[1], x[2], {2, 1, 1});
       },
       "",
       {}},
      {"conv_transpose2d/gaps",
       [](In x) {
         return conv_transpose2d(x[0], x[1], Tensor(), {3, 0, 1});
       },
       "",
       {}},
  });
}
