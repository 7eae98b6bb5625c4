// Ops of dense prediction: resizing, RoIAlign, transposed convolution.
#include "op_cases/op_case.hpp"
#include "ppma/ops/conv_transpose.hpp"
#include "ppma/ops/resize.hpp"
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
}  // namespace

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
