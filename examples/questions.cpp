// The figures behind docs/questions.md: what can be settled by computing it, in its order.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "ppma/models/ppma.hpp"
#include "ppma/models/vit.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/masks.hpp"
#include "ppma/polyline/structured.hpp"
#include "ppma/polyline/volume.hpp"

using namespace ppma;

namespace {

bool all_right = true;

double largest_difference(const Tensor& a, const Tensor& b) {
  double most = 0;
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  for (std::size_t i = 0; i < x.size(); ++i) most = std::fmax(most, std::fabs(x[i] - y[i]));
  return most;
}

// What is equal is equal to 1e-12; what differs, differs by more than 1e-3.
void equal(const char* what, double difference) {
  std::printf("  %-66s %s\n", what, difference < 1e-12 ? "equal (1e-12)" : "NOT EQUAL");
  all_right = all_right && difference < 1e-12;
}
void differs(const char* what, double difference) {
  std::printf("  %-66s differs by %.2f\n", what, difference);
  all_right = all_right && difference > 1e-3;
}

Tensor normal(const Shape& shape, u64 seed, double deviation = 1) {
  Rng rng(seed);
  return Tensor::randn(shape, rng, deviation, DType::f64);
}

// Log decays between ln 0.3 and 0.
Tensor some_decays(const Shape& shape, u64 seed) {
  Rng rng(seed);
  std::vector<double> logs(static_cast<std::size_t>(Tensor::empty(shape, DType::f64).numel()));
  for (double& d : logs) d = std::log(rng.uniform(0.3, 1.0));
  return Tensor::from<double>(logs, shape);
}

// Rank of rows r0.., columns c0.. of a matrix (n,n), by elimination with full pivoting.
int rank_of(const Tensor& matrix, i64 r0, i64 rows, i64 c0, i64 columns) {
  const i64 n = matrix.dim(-1);
  std::vector<std::vector<double>> m;
  for (i64 i = r0; i < r0 + rows; ++i) {
    const double* row = matrix.data<double>() + i * n + c0;
    m.emplace_back(row, row + columns);
  }
  int rank = 0;
  for (;; ++rank) {
    double most = 0;
    std::size_t pi = 0, pj = 0;
    for (auto i = static_cast<std::size_t>(rank); i < m.size(); ++i)
      for (std::size_t j = 0; j < m[i].size(); ++j)
        if (std::fabs(m[i][j]) > most) most = std::fabs(m[i][j]), pi = i, pj = j;
    if (most < 1e-12) return rank;
    std::swap(m[static_cast<std::size_t>(rank)], m[pi]);
    const std::vector<double> pivot = m[static_cast<std::size_t>(rank)];
    for (auto i = static_cast<std::size_t>(rank) + 1; i < m.size(); ++i) {
      const double factor = m[i][pj] / pivot[pj];
      for (std::size_t j = 0; j < m[i].size(); ++j) m[i][j] -= factor * pivot[j];
      m[i][pj] = 0;
    }
  }
}

void rmt() {
  std::printf("RMT as a special case (4 heads, 6 x 7 tokens)\n");
  const i64 h = 6, w = 7, heads = 4, c = 32;
  const Tensor q = normal({1, h, w, c}, 1), k = normal({1, h, w, c}, 2),
               v = normal({1, h, w, c}, 3);
  const Tensor constants = rmt_decay_log(heads, 2, 4, DType::f64),
               fixed = constant_log_decay(constants, 1, h, w);
  equal("whole attention, constant decays: RMT's",
        largest_difference(masked_whole_attention(q, k, v, heads, MaskKind::rmt, fixed),
                           whole_attention(q, k, v, heads, fixed)));
  const Tensor theirs = masked_criss_cross(q, k, v, heads, MaskKind::rmt, fixed);
  differs("criss-cross attention, constant decays, both orders: RMT's",
          largest_difference(theirs, criss_cross_attention(q, k, v, heads, fixed)));
  equal(
      "criss-cross attention, constant decays, rows first: RMT's",
      largest_difference(theirs, criss_cross_attention(q, k, v, heads, fixed, Order::rows_first)));
  // dt_linear = 0: ln decay = -A softplus(b), and b = ln(e^s - 1) with s = -ln gamma / A makes it
  // RMT's.
  Tensor bias = Tensor::empty(Shape{heads}, DType::f64);
  for (i64 g = 0; g < heads; ++g)
    bias.data<double>()[g] = std::log(std::expm1(-constants.data<double>()[g]));
  const Tensor learnt = log_decay(q, Tensor::zeros({2, c / heads}, DType::f64), bias,
                                  Tensor::zeros(Shape{heads}, DType::f64));
  equal("learnt decays with dt_linear = 0 and the right dt_bias: RMT's",
        largest_difference(learnt, concat({fixed, fixed}, 0)));
}

void ranks() {
  std::printf("Ranks (a line of 12 tokens; a grid of 4 x 5)\n");
  const Tensor line = exp(sequence_log_mask(some_decays(Shape{12}, 4)));
  int most = 0;
  for (i64 i = 0; i < 12; ++i)
    for (i64 j = 0; j <= i; ++j) most = std::max(most, rank_of(line, i, 12 - i, 0, j + 1));
  std::printf("  blocks within the lower triangle of a line's mask: rank at most %d\n", most);
  std::printf("  the whole of it: rank %d of 12\n", rank_of(line, 0, 12, 0, 12));
  const Tensor l = exp(polyline_log_mask(some_decays({2, 1, 1, 4, 5}, 5)));
  std::printf("  the polyline mask L: rank %d of 20\n", rank_of(l, 0, 20, 0, 20));
  all_right = all_right && most == 1;
}

void range() {
  std::printf("Decays for any evidence (A = 1, b = 0)\n");
  for (const double z : {-800.0, -8.0, 0.0, 2.0, 8.0, 800.0}) {
    const Tensor d =
        log_decay(Tensor::full({1, 1, 1, 1}, z, DType::f64), Tensor::ones({1, 1}, DType::f64),
                  Tensor::zeros(Shape{1}, DType::f64), Tensor::zeros(Shape{1}, DType::f64));
    std::printf("  z = %g: %.4f", z, std::exp(d.item()));
  }
  std::printf("\n");
}

void forms() {
  std::printf("Recurrent forms (7 x 6 tokens, 2 heads)\n");
  const Tensor q = normal({1, 7, 6, 8}, 6), k = normal({1, 7, 6, 8}, 7),
               v = normal({1, 7, 6, 8}, 8), decays = some_decays({2, 1, 2, 7, 6}, 9);
  const Tensor formula = linear_attention(q, k, v, 2, decays, Paths::both, LinearForm::quadratic);
  equal("linear attention: scans = formula with the N x N mask",
        largest_difference(formula,
                           linear_attention(q, k, v, 2, decays, Paths::both, LinearForm::scan)));
  equal("linear attention: blocks with one state = formula",
        largest_difference(
            formula, linear_attention(q, k, v, 2, decays, Paths::both, LinearForm::chunked, 3)));
  const Tensor c = normal({40, 4}, 10), b = normal({40, 4}, 11), x = normal({40, 5}, 12),
               line = some_decays(Shape{40}, 13);
  equal("Mamba2's attention on a sequence: recurrence = formula",
        largest_difference(structured_attention(c, b, x, line, LinearForm::scan),
                           structured_attention(c, b, x, line, LinearForm::quadratic)));
}

void one_way() {
  std::printf("2DMamba's scan (4 x 5 tokens)\n");
  const i64 h = 4, w = 5, n = h * w;
  const Tensor d = some_decays({1, 1, h, w}, 14), x = normal({1, h, w, 1}, 15);
  const Tensor both = exp(polyline_log_mask(join_decays(d, d), Paths::h2v));
  Tensor causal = Tensor::zeros({n, n}, DType::f64);
  i64 kept = 0;
  for (i64 u = 0; u < n; ++u)
    for (i64 v = 0; v < n; ++v)
      if (v / w <= u / w && v % w <= u % w)
        causal.data<double>()[u * n + v] = both.data<double>()[u * n + v], ++kept;
  const Tensor y = one_way_scan(x, d);
  equal("its scan = L^T with alpha = beta, from above and the left alone",
        largest_difference(y, reshape(matmul(causal, reshape(x, {n, 1})), y.shape())));
  std::printf("  it has %lld of the mask's %lld entries\n", static_cast<long long>(kept),
              static_cast<long long>(n * n));
}

void plain_vit() {
  std::printf("In a plain vision transformer (DeiT-tiny)\n");
  const SkipInit skip;
  Vit plain(deit_tiny()), masked(deit_tiny(MaskKind::polyline));
  std::printf("  parameters: %lld, with the mask %lld more\n",
              static_cast<long long>(parameter_count(plain)),
              static_cast<long long>(parameter_count(masked) - parameter_count(plain)));
}

// How far the sum of two half batches' gradients is from the whole batch's, relative 2-norm.
template <class Model>
double halves_beside_whole(Model& model, const Tensor& images, const Tensor& labels) {
  const auto gradients = [&](const std::vector<std::pair<i64, i64>>& parts) {
    for (Field& f : named_parameters(model)) f.tensor.zero_grad();
    for (const auto& [first, count] : parts) {
      Context context{true, Rng(1)};
      const Tensor loss = cross_entropy(model.forward(narrow(images, 0, first, count), context),
                                        narrow(labels, 0, first, count));
      scale(loss, static_cast<double>(count) / static_cast<double>(images.dim(0))).backward();
    }
    std::vector<double> all;
    for (Field& f : named_parameters(model))
      if (f.tensor.grad().defined())
        for (const double g : f.tensor.grad().template to_vector<double>()) all.push_back(g);
    return all;
  };
  const i64 n = images.dim(0);
  const std::vector<double> whole = gradients({{0, n}}),
                            halves = gradients({{0, n / 2}, {n / 2, n / 2}});
  double difference = 0, size = 0;
  for (std::size_t k = 0; k < whole.size(); ++k)
    difference += (whole[k] - halves[k]) * (whole[k] - halves[k]), size += whole[k] * whole[k];
  return std::sqrt(difference / size);
}

void accumulation() {
  std::printf("Gradients of one batch, and of its halves accumulated (f64)\n");
  const auto images = [](i64 count) { return normal({count, 3, 32, 32}, 16); };
  const auto labels = [](i64 count) {
    std::vector<i64> classes;
    for (i64 k = 0; k < count; ++k) classes.push_back(k % 10);
    return Tensor::from<i64>(classes, Shape{count});
  };
  VitConfig c;
  c.image_size = 32, c.patch_size = 8, c.width = 24, c.depth = 2, c.heads = 2, c.num_classes = 10;
  c.drop_path_rate = 0, c.mask = MaskKind::polyline;
  Vit vit(c);
  to(vit, DType::f64);
  Ppma network(ppma_nano());
  to(network, DType::f64);
  equal("a vision transformer, which has layer norms alone, 8 images",
        halves_beside_whole(vit, images(8), labels(8)));
  for (const i64 count : {8, 64}) {
    const double batch_norms = halves_beside_whole(network, images(count), labels(count));
    std::printf(
        "  ppma_nano, whose batch norms see halves, %2lld images                 differs by %.0f "
        "%%\n",
        static_cast<long long>(count), 100 * batch_norms);
    all_right = all_right && batch_norms > 0.01;
  }
}

}  // namespace

int main() {
  rmt(), ranks(), range(), forms(), one_way(), plain_vit(), accumulation();
  return all_right ? 0 : 1;
}
