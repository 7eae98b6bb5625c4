#include "ppma/ops/gate.hpp"

#include <cmath>

#include "distance.hpp"
#include "op_cases/op_case.hpp"
#include "ppma/ops/layout.hpp"

using namespace op_cases;

namespace {

double plain_gate(Gate f, double x) {
  return f == Gate::gelu ? x * std::erfc(-x / std::sqrt(2.0)) / 2 : x / (1 + std::exp(-x));
}

// map (3,M), tail (3,T) -> y (3,E)
Plain plain(i64 map, i64 first, i64 width, i64 tail, Gate f) {
  return {{{{3, map}}, {{3, tail}}}, {3, width}, [=](const Lists& x) {
            std::vector<double> y;
            for (i64 r = 0; r < 3; ++r)
              for (i64 c = 0; c < width; ++c) {
                const auto at = [&](i64 channel) {
                  return x[0][static_cast<std::size_t>(r * map + channel)];
                };
                const double m =
                    c < width - tail
                        ? at(first + width + c)
                        : x[1][static_cast<std::size_t>(r * tail + c - (width - tail))];
                y.push_back(plain_gate(f, at(first + c)) * m);
              }
            return y;
          }};
}

std::function<Tensor(In)> gate(i64 first, i64 width, Gate f) {
  return [=](In x) { return gated(x[0], first, width, x[1], f); };
}

}  // namespace

TEST_CASE("op table: gate") {
  check_table({
      {"gated",
       gate(0, 5, Gate::gelu),
       "gated: 4 channels of a gate from 2 on, and 2 behind them beside a tail of 2, do not lie in "
       "a map of 7",
       [] {
         gated(zeros({3, 7}), 2, 4, zeros({3, 2}), Gate::gelu);
       },
       {},
       plain(10, 0, 5, 2, Gate::gelu)},
      {"gated/a tail alone",
       gate(4, 4, Gate::silu),
       "gated: map (2, 8) and tail (3, 4)",
       [] {
         gated(zeros({2, 8}), 4, 4, zeros({3, 4}), Gate::silu);
       },
       {},
       plain(8, 4, 4, 4, Gate::silu)},
      {"gated/in the middle of a map",
       gate(8, 24, Gate::gelu),
       "gated: map is f64 on cpu, tail int64 on cpu",
       [] {
         gated(zeros({2, 8}), 4, 4, int64s({2, 4}), Gate::silu);
       },
       {},
       plain(64, 8, 24, 8, Gate::gelu)},
      {"gated_composed",
       [](In x) { return gated_composed(x[0], 1, 3, x[1], Gate::silu); },
       "gated: map or tail is undefined",
       [] {
         gated_composed(zeros({2, 8}), 4, 4, Tensor(), Gate::silu);
       },
       {},
       plain(6, 1, 3, 1, Gate::silu)},
  });
}

TEST_CASE("gate: as its parts, and other uses of the map add to its gradient") {
  Rng rng(5);
  Tensor map = Tensor::randn({2, 3, 20}, rng, 1, DType::f64),
         tail = Tensor::randn({2, 3, 3}, rng, 1, DType::f64);
  map.requires_grad(true), tail.requires_grad(true);
  const auto gradients = [&](bool composed) {
    map.zero_grad(), tail.zero_grad();
    const Tensor first = narrow(map, 2, 0, 4), last = narrow(map, 2, 17, 3);
    const Tensor y =
        composed ? gated_composed(map, 4, 8, tail, Gate::silu) : gated(map, 4, 8, tail, Gate::silu);
    concat({first, y, last, narrow(map, 2, 1, 9)}, 2)
        .backward(Tensor::ones({2, 3, 24}, DType::f64));
    return std::vector<Tensor>{y.detach(), map.grad(), tail.grad()};
  };
  const std::vector<Tensor> one = gradients(false), other = gradients(true);
  for (std::size_t k = 0; k < one.size(); ++k) CHECK(distance(one[k], other[k]) < 1e-14);
}
