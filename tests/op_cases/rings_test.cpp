#include "ppma/ops/rings.hpp"

#include <algorithm>

#include "op_cases/op_case.hpp"

using namespace op_cases;

namespace {

// x (1,H,W,2), taps (27,2) -> y (1,H,W,2)
Plain plain_rings(int height, int width, Beyond beyond) {
  return {{{{1, height, width, 2}}, {{27, 2}}}, {1, height, width, 2}, [=](const Lists& x) {
            const auto at = [](int i) { return static_cast<std::size_t>(i); };
            std::vector<double> y(at(height * width * 2));
            for (int i = 0; i < height * width * 2; ++i)
              for (int t = 0; t < 27; ++t) {
                const int c = i % 2, distance = 1 + t / 9 * 2;
                int row = i / 2 / width + (t / 3 % 3 - 1) * distance,
                    column = i / 2 % width + (t % 3 - 1) * distance;
                const bool outside = row < 0 || row >= height || column < 0 || column >= width;
                if (outside && beyond == Beyond::zeros) continue;
                row = std::clamp(row, 0, height - 1), column = std::clamp(column, 0, width - 1);
                y[at(i)] += x[1][at(t * 2 + c)] * x[0][at((row * width + column) * 2 + c)];
              }
            return y;
          }};
}

std::function<Tensor(In)> rings(Beyond beyond) {
  return [beyond](In x) { return rings_conv2d(x[0], x[1], beyond); };
}

}  // namespace

TEST_CASE("op table: rings") {
  check_table({
      {"rings_conv2d",
       rings(Beyond::zeros),
       "rings_conv2d: x must be (B,H,W,C) and taps (27,C), got (1, 2, 3, 4) and (27, 3)",
       [] {
         rings_conv2d(zeros({1, 2, 3, 4}), zeros({27, 3}), Beyond::zeros);
       },
       {1},
       plain_rings(7, 12, Beyond::zeros)},
      {"rings_conv2d/edges",
       rings(Beyond::edges),
       "rings_conv2d: x is f64 on cpu, taps int64 on cpu",
       [] {
         rings_conv2d(zeros({1, 2, 3, 4}), int64s({27, 4}), Beyond::edges);
       },
       {1},
       plain_rings(7, 3, Beyond::edges)},
      {"rings_conv2d/edges of few rows",
       rings(Beyond::edges),
       "rings_conv2d: x or taps is undefined",
       [] { rings_conv2d(Tensor(), Tensor(), Beyond::edges); },
       {1},
       plain_rings(2, 13, Beyond::edges)},
      {"rings_conv2d_composed",
       [](In x) { return rings_conv2d_composed(x[0], x[1], Beyond::edges); },
       "rings_conv2d: x must be (B,H,W,C)",
       [] {
         rings_conv2d_composed(zeros({2, 3, 4}), zeros({27, 4}), Beyond::edges);
       },
       {1},
       plain_rings(6, 5, Beyond::edges)},
  });
}
