#include "ppma/ops/conv.hpp"

#include <cmath>

#include "op_cases/op_case.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/depthwise_gelu.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/tensor/tensor.hpp"

using namespace op_cases;

namespace {
void conv_misuse(const Shape& x, const Shape& w, const ConvOptions& options = {}) {
  conv2d(zeros(x), zeros(w), Tensor(), options);
}
}  // namespace

TEST_CASE("op table: conv") {
  check_table({
      {"conv2d",
       [](In x) { return conv2d(x[0], x[1], x[2]); },
       "conv2d: x must be (B,H,W,C), got (4, 4, 3)",
       [] {
         conv_misuse({4, 4, 3}, {2, 3, 3, 3});
       },
       {1, 2}},
      {"conv2d/strided",
       [](In x) { return conv2d(x[0], x[1], x[2], {.stride = 2, .padding = 1}); },
       "conv2d: stride 0, padding 0, groups 1",
       [] {
         conv_misuse({1, 4, 4, 3}, {2, 3, 3, 3}, {.stride = 0});
       },
       {1, 2}},
      {"conv2d/1x1",
       [](In x) { return conv2d(x[0], x[1]); },
       "conv2d: x (1, 4, 4, 3) has 3 channels, w (2, 4, 3, 3) with 1 groups takes 4",
       [] {
         conv_misuse({1, 4, 4, 3}, {2, 4, 3, 3});
       },
       {1, 2}},
      {"conv2d/groups",
       [](In x) { return conv2d(x[0], x[1], x[2], {.stride = 2, .padding = 2, .groups = 2}); },
       "conv2d: groups 2 must divide the 3 input and 2 output channels",
       [] {
         conv_misuse({1, 4, 4, 3}, {2, 3, 3, 3}, {.groups = 2});
       },
       {1, 2}},
      {"conv2d/patches",
       [](In x) { return conv2d(x[0], x[1], x[2], {.stride = 3}); },
       "conv2d: a 3x3 kernel on an image of (1, 2, 4, 3) with padding 0",
       [] {
         conv_misuse({1, 2, 4, 3}, {2, 3, 3, 3});
       },
       {1, 2}},
      {"conv2d/gaps",
       [](In x) { return conv2d(x[0], x[1], x[2], {.stride = 3}); },
       "conv2d: b must be (2), got (3)",
       [] {
         conv2d(zeros({1, 3, 3, 1}), zeros({2, 1, 3, 3}), zeros({3}));
       },
       {1, 2}},
      {"conv2d/wide padding",
       [](In x) { return conv2d(x[0], x[1], x[2], {.padding = 3}); },
       "conv2d: x must have elements, got (0, 3, 3, 1)",
       [] {
         conv_misuse({0, 3, 3, 1}, {2, 1, 3, 3});
       },
       {1, 2}},
      {"conv2d/depthwise",
       [](In x) { return conv2d(x[0], x[1], x[2], {.padding = 1, .groups = 3}); },
       "",
       {},
       {1, 2}},
      {"depthwise_conv2d",
       [](In x) { return depthwise_conv2d(x[0], x[1], x[2]); },
       "depthwise_conv2d: w must be (C,1,k,k) with the 5 channels of x, got (4, 1, 3, 3)",
       [] {
         depthwise_conv2d(zeros({1, 3, 3, 5}), zeros({4, 1, 3, 3}));
       },
       {1, 2}},
      {"depthwise_conv2d/5x5",
       [](In x) { return depthwise_conv2d(x[0], x[1], x[2], x[3]); },
       "depthwise_conv2d: the kernel must be square and odd, got w (5, 1, 2, 2)",
       [] {
         depthwise_conv2d(zeros({1, 3, 3, 5}), zeros({5, 1, 2, 2}));
       },
       {1, 2}},
      {"depthwise_conv2d/add x",
       [](In x) { return depthwise_conv2d(x[0], x[1], x[2], x[0]); },
       "depthwise_conv2d: add (1, 3, 3, 4) must have the shape of x",
       [] {
         depthwise_conv2d(zeros({1, 3, 3, 5}), zeros({5, 1, 3, 3}), Tensor(), zeros({1, 3, 3, 4}));
       },
       {1, 2}},
      {"depthwise_conv2d/add made on the way",
       [](In x) { return depthwise_conv2d(x[0], x[1], x[2], [&] { return x[0] * x[0]; }) + x[0]; },
       "depthwise_conv2d: add (1, 3, 3, 4) must have the shape of x",
       [] {
         Tensor w = zeros({5, 1, 3, 3});
         depthwise_conv2d(zeros({1, 3, 3, 5}), w.requires_grad(true), Tensor(), [] {
           return zeros({1, 3, 3, 4});
         });
       },
       {1, 2},
       Plain{{{{1, 3, 4, 2}}, {{2, 1, 3, 3}}, {{2}}},
             {1, 3, 4, 2},
             [](const Lists& x) {
               std::vector<double> y;
               for (int i = 0; i < 3; ++i)
                 for (int j = 0; j < 4; ++j)
                   for (int c = 0; c < 2; ++c) {
                     const auto at = [&](int row, int col) {
                       return row < 0 || row > 2 || col < 0 || col > 3
                                  ? 0.0
                                  : x[0][static_cast<std::size_t>((row * 4 + col) * 2 + c)];
                     };
                     const double own = at(i, j);
                     double sum = x[2][static_cast<std::size_t>(c)] + own * own + own;
                     for (int t = 0; t < 9; ++t)
                       sum += at(i + t / 3 - 1, j + t % 3 - 1) *
                              x[1][static_cast<std::size_t>(c * 9 + t)];
                     y.push_back(sum);
                   }
               return y;
             }}},
      {"depthwise_gelu",
       [](In x) { return depthwise_gelu(x[0], x[1], x[2]); },
       "depthwise_conv2d: w must be (C,1,k,k) with the 5 channels of x",
       [] {
         depthwise_gelu(zeros({1, 3, 3, 5}), zeros({4, 1, 3, 3}));
       },
       {1, 2}},
      {"depthwise_gelu/shift",
       [](In x) {  // the shift is in what it gets: linear's bias, detached
         return depthwise_gelu(linear(x[0], x[1], x[2].detach()), x[3], x[4], x[2]);
       },
       "depthwise_gelu: shift must be (5) f64 on cpu, got (4)",
       [] {
         depthwise_gelu(zeros({1, 3, 3, 5}), zeros({5, 1, 3, 3}), Tensor(), zeros({4}));
       },
       {2, 3, 4},
       Plain{{{{1, 3, 4, 2}}, {{3, 2}}, {{3}}, {{3, 1, 3, 3}}, {{3}}},
             {1, 3, 4, 3},
             [](const Lists& x) {
               const auto h = [&](int row, int col, int c) {
                 if (row < 0 || row > 2 || col < 0 || col > 3) return 0.0;
                 const auto pixel = static_cast<std::size_t>((row * 4 + col) * 2),
                            channel = static_cast<std::size_t>(c);
                 const double u = x[0][pixel] * x[1][2 * channel] +
                                  x[0][pixel + 1] * x[1][2 * channel + 1] + x[2][channel];
                 return u / 2 * (1 + std::erf(u / std::sqrt(2.0)));
               };
               std::vector<double> y;
               for (int i = 0; i < 3; ++i)
                 for (int j = 0; j < 4; ++j)
                   for (int c = 0; c < 3; ++c) {
                     double sum = x[4][static_cast<std::size_t>(c)] + h(i, j, c);
                     for (int t = 0; t < 9; ++t)
                       sum += h(i + t / 3 - 1, j + t % 3 - 1, c) *
                              x[3][static_cast<std::size_t>(c * 9 + t)];
                     y.push_back(sum);
                   }
               return y;
             }}},
      {"depthwise_gelu_composed",
       [](In x) { return depthwise_gelu_composed(x[0], x[1], x[2]); },
       "gelu: the argument is an undefined tensor",
       [] {
         depthwise_gelu_composed(Tensor(), zeros({4, 1, 3, 3}));
       },
       {1, 2}},
      {"conv2d_gelu",
       [](In x) { return conv2d_gelu(x[0], x[1], x[2], {.stride = 2, .padding = 1}); },
       "conv2d: x must have elements, got (0, 3, 3, 1)",
       [] {
         conv2d_gelu(zeros({0, 3, 3, 1}), zeros({2, 1, 3, 3}));
       },
       {1, 2}},
      {"conv2d_gelu_of_images",
       [](In x) { return conv2d_gelu_of_images(x[0], x[1], x[2], {.stride = 2, .padding = 1}); },
       "conv2d_gelu_of_images: images must be (B,I,H,W), got (3, 3, 1)",
       [] {
         conv2d_gelu_of_images(zeros({3, 3, 1}), zeros({2, 1, 3, 3}), Tensor(), {});
       },
       {1, 2}},
      {"conv2d_of_images",
       [](In x) { return conv2d_of_images(x[0], x[1], x[2], {.stride = 2, .padding = 1}); },
       "conv2d_of_images: images must be (B,I,H,W), got (3, 3, 1)",
       [] {
         conv2d_of_images(zeros({3, 3, 1}), zeros({2, 1, 3, 3}));
       },
       {1, 2}},
      {"depthwise_conv2d/7x7",
       [](In x) { return depthwise_conv2d(x[0], x[1]); },
       "depthwise_conv2d: x must have elements, got (1, 0, 3, 5)",
       [] {
         depthwise_conv2d(zeros({1, 0, 3, 5}), zeros({5, 1, 3, 3}));
       },
       {1, 2}},
  });
}
