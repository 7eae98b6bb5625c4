// Convolutions against the definition, written as loops, at the sizes where the kernels change
// path: full and partial vectors, tiles that end in the middle, borders, strides that leave gaps,
// few and many channels.

#include "ppma/ops/conv.hpp"

#include <cmath>

#include "catch.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/layout.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

struct Direct {
  Tensor y, dx, dw, db;  // f64
};

// y and its gradients for dy = cos(1.7 i + 0.3); with `magnitude` all products are added as
// absolute values.
Direct direct_conv(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o,
                   const Shape& y_shape, bool magnitude) {
  const auto f = [magnitude](double v) { return magnitude ? std::fabs(v) : v; };
  Direct r{Tensor::zeros(y_shape, DType::f64), Tensor::zeros(x.shape(), DType::f64),
           Tensor::zeros(w.shape(), DType::f64), Tensor::zeros({w.dim(0)}, DType::f64)};
  const std::vector<double> xv = x.to_vector<double>(), wv = w.to_vector<double>(),
                            bv = b.to_vector<double>();
  double *y = r.y.data<double>(), *dx = r.dx.data<double>(), *dw = r.dw.data<double>(),
         *db = r.db.data<double>();
  const i64 in = w.dim(1), out = w.dim(0) / o.groups;
  i64 at = 0;
  for (i64 n = 0; n < x.dim(0); ++n)
    for (i64 i = 0; i < y_shape[1]; ++i)
      for (i64 j = 0; j < y_shape[2]; ++j)
        for (i64 c = 0; c < w.dim(0); ++c, ++at) {
          const double dy = f(std::cos(1.7 * static_cast<double>(at) + 0.3));
          y[at] = f(bv[static_cast<std::size_t>(c)]);
          db[c] += dy;
          for (i64 ky = 0; ky < w.dim(2); ++ky)
            for (i64 kx = 0; kx < w.dim(3); ++kx) {
              const i64 row = i * o.stride - o.padding + ky, col = j * o.stride - o.padding + kx;
              if (row < 0 || col < 0 || row >= x.dim(1) || col >= x.dim(2)) continue;
              for (i64 q = 0; q < in; ++q) {
                const i64 px =
                    ((n * x.dim(1) + row) * x.dim(2) + col) * x.dim(3) + c / out * in + q;
                const i64 pw = ((c * in + q) * w.dim(2) + ky) * w.dim(3) + kx;
                const double xe = f(xv[static_cast<std::size_t>(px)]),
                             we = f(wv[static_cast<std::size_t>(pw)]);
                y[at] += xe * we;
                dx[px] += dy * we;
                dw[pw] += dy * xe;
              }
            }
        }
  return r;
}

// Within the bound of any order of summation: terms * epsilon * sum of the terms' magnitudes,
// elementwise.
void check_sums(const char* what, const Tensor& got, const Tensor& expected,
                const Tensor& magnitude, i64 terms) {
  REQUIRE(got.shape() == expected.shape());
  const std::vector<double> g = got.to_vector<double>(), e = expected.to_vector<double>(),
                            m = magnitude.to_vector<double>();
  const double epsilon = got.dtype() == DType::f32 ? 0x1p-23 : 0x1p-52;
  double worst = 0;  // error in units of the bound
  for (std::size_t i = 0; i < g.size(); ++i) {
    const double bound = static_cast<double>(terms) * epsilon * m[i];
    const double error = std::fabs(g[i] - e[i]);
    if (!(error <= worst * bound)) worst = bound > 0 ? error / bound : 2;
  }
  INFO(what << " " << to_string(got.dtype()));
  CHECK(worst <= 1);
}

template <class Op>
void check_against_direct(const Shape& xs, const Shape& ws, const ConvOptions& o, Op&& op) {
  INFO("x " << xs.str() << " w " << ws.str() << " stride " << o.stride << " padding " << o.padding
            << " groups " << o.groups);
  for (const DType dtype : {DType::f64, DType::f32}) {
    Rng rng(5);
    Tensor x = Tensor::randn(xs, rng, 1, dtype), w = Tensor::randn(ws, rng, 1, dtype),
           b = Tensor::randn({ws[0]}, rng, 1, dtype);
    x.requires_grad(true), w.requires_grad(true), b.requires_grad(true);
    const Tensor y = op(x, w, b);
    Tensor dy = Tensor::empty(y.shape(), DType::f64), dy_typed = Tensor::empty(y.shape(), dtype);
    for (i64 i = 0; i < dy.numel(); ++i)
      dy.data<double>()[i] = std::cos(1.7 * static_cast<double>(i) + 0.3);
    dy_typed.copy_from(dy);
    y.backward(dy_typed);
    const Direct value = direct_conv(x, w, b, o, y.shape(), false),
                 magnitude = direct_conv(x, w, b, o, y.shape(), true);
    const i64 taps = ws[2] * ws[3], pixels = y.numel() / ws[0];
    check_sums("y", y, value.y, magnitude.y, taps * ws[1] + 1);
    check_sums("dx", x.grad(), value.dx, magnitude.dx, taps * ws[0] / o.groups + 1);
    check_sums("dw", w.grad(), value.dw, magnitude.dw, pixels + 1);
    check_sums("db", b.grad(), value.db, magnitude.db, pixels + 1);
  }
}

}  // namespace

TEST_CASE("conv2d is its definition") {
  struct Case {
    Shape x, w;
    ConvOptions options;
  };
  for (const Case& c : {
           Case{{2, 8, 9, 4}, {40, 4, 3, 3}, {1, 1, 1}},    // a full and a partial panel
           Case{{1, 15, 13, 3}, {32, 3, 3, 3}, {2, 1, 1}},  // the stem
           Case{{1, 9, 31, 33}, {35, 33, 3, 3}, {2, 1, 1}},
           Case{{1, 5, 30, 16}, {64, 16, 3, 3}, {1, 1, 1}},  // rows of two tiles
           // weights larger than half of L2: split by panels
           Case{{3, 2, 3, 48}, {310, 48, 3, 3}, {1, 1, 1}},
           // the same for one image: packed when their turn comes
           Case{{1, 5, 6, 48}, {310, 48, 3, 3}, {2, 1, 1}},
           Case{{1, 6, 31, 8}, {8, 2, 3, 3}, {1, 1, 4}},
           Case{{1, 6, 5, 4}, {6, 2, 1, 1}, {1, 0, 2}}, Case{{1, 9, 9, 6}, {4, 6, 5, 5}, {3, 4, 1}},
           Case{{1, 9, 9, 6}, {4, 3, 2, 3}, {3, 0, 2}},
           Case{{1, 4, 4, 2}, {2, 2, 1, 1}, {2, 0, 1}},  // pixels that no tap meets
           Case{{1, 16, 16, 3}, {16, 3, 4, 4}, {4, 0, 1}},
           Case{{1, 1, 1, 2}, {3, 2, 3, 3}, {2, 1, 1}},
           Case{{3, 3, 3, 4}, {4, 1, 3, 3}, {2, 1, 4}},  // depthwise, but strided
           // tiles of 2 x 2 pixels: whole ones and halves, full and partial vectors, all paddings
           Case{{2, 17, 19, 32}, {40, 32, 3, 3}, {1, 1, 1}},
           Case{{1, 18, 18, 35}, {33, 35, 3, 3}, {1, 0, 1}},
           Case{{1, 16, 15, 32}, {32, 32, 3, 3}, {1, 2, 1}},
           Case{{1, 3, 90, 300}, {32, 300, 3, 3}, {1, 1, 1}},  // k beyond a block of 256
       })
    check_against_direct(c.x, c.w, c.options,
                         [&c](const Tensor& x, const Tensor& w, const Tensor& b) {
                           return conv2d(x, w, b, c.options);
                         });
}

TEST_CASE("depthwise convolution is its definition") {
  for (const auto& [h, w] : {std::pair<i64, i64>{7, 7}, {3, 14}, {1, 1}, {3, 8}, {4, 17}, {18, 5}})
    for (const i64 c : {3, 16, 37})
      for (const i64 k : {1, 3, 5, 7})
        check_against_direct({2, h, w, c}, {c, 1, k, k}, {1, k / 2, c},
                             [](const Tensor& x, const Tensor& weight, const Tensor& b) {
                               return depthwise_conv2d(x, weight, b);
                             });
}

TEST_CASE("depthwise convolution adds what it is given, also x itself") {
  Rng rng(3);
  Tensor x = Tensor::randn({2, 5, 9, 21}, rng, 1, DType::f64),
         w = Tensor::randn({21, 1, 3, 3}, rng, 1, DType::f64);
  Tensor other = Tensor::randn(x.shape(), rng, 1, DType::f64);
  const Tensor dy = Tensor::randn(x.shape(), rng, 1, DType::f64);
  x.requires_grad(true), other.requires_grad(true);
  const auto values = [](const Tensor& t) { return t.to_vector<double>(); };
  const Tensor plain = depthwise_conv2d(x, w), with_other = depthwise_conv2d(x, w, Tensor(), other),
               with_x = depthwise_conv2d(x, w, Tensor(), x);
  for (std::size_t i = 0; i < values(x).size(); ++i) {
    REQUIRE(std::fabs(values(with_other)[i] - values(plain)[i] - values(other)[i]) < 1e-13);
    REQUIRE(std::fabs(values(with_x)[i] - values(plain)[i] - values(x)[i]) < 1e-13);
    if (i == 50) break;
  }
  plain.backward(dy);
  const std::vector<double> dx = values(x.grad()), up = values(dy);
  x.zero_grad();
  with_other.backward(dy);
  CHECK(values(other.grad()) == up);
  CHECK(values(x.grad()) == dx);
  x.zero_grad();
  with_x.backward(dy);
  const std::vector<double> dx_sum = values(x.grad());
  double worst = 0;
  for (std::size_t i = 0; i < dx.size(); ++i)
    worst = std::max(worst, std::fabs(dx_sum[i] - dx[i] - up[i]));
  CHECK(worst < 1e-13);
}

TEST_CASE("images are convolved as they come") {
  Rng rng(4);
  Tensor images = Tensor::randn({2, 3, 6, 8}, rng, 1, DType::f64),
         w = Tensor::randn({5, 3, 3, 3}, rng, 1, DType::f64),
         b = Tensor::randn({5}, rng, 1, DType::f64);
  for (Tensor* t : {&images, &w, &b}) t->requires_grad(true);
  const ConvOptions options{2, 1, 1};
  const auto all = [&](const Tensor& y) {
    std::vector<std::vector<double>> values{y.to_vector<double>()};
    y.backward(Tensor::full(y.shape(), 0.7, DType::f64));
    for (Tensor* t : {&images, &w, &b})
      values.push_back(t->grad().to_vector<double>()), t->zero_grad();
    return values;
  };
  CHECK(all(conv2d_gelu_of_images(images, w, b, options)) ==
        all(conv2d_gelu(permute(images, {0, 2, 3, 1}), w, b, options)));
  CHECK(says([&] { conv2d_gelu_of_images(select(images, 0, 0), w, b, options); },
             "conv2d_gelu_of_images: images must be (B,I,H,W), got (3, 6, 8)"));
}
