#include <cmath>

#include "included/fast_math.hpp"

namespace fast_math {

namespace {

template <class F>
List each(const List& x, F f) {
  List y;
  for (const double v : x) y.push_back(f(v));
  return y;
}

}  // namespace

List arguments() {
  List x{0, 1, -2, 88.5, -87, -100, 1000, 1e-30, -0.3, 1e-4, 30, -30};
  for (double v = -90; v < 89; v += 0.37) x.push_back(v);
  return x;
}
List exp(const List& x) {
  return each(x, [](double v) { return std::exp(v); });
}
List sigmoid(const List& x) {
  return each(x, [](double v) { return 1 / (1 + std::exp(-v)); });
}
List tanh(const List& x) {
  return each(x, [](double v) { return std::tanh(v); });
}
List softplus(const List& x) {
  return each(x, [](double v) { return v > 20 ? v : std::log1p(std::exp(v)); });
}
List relu(const List& x) {
  return each(x, [](double v) { return v > 0 ? v : 0; });
}

namespace {

// Attention along lines of n tokens `step` apart, the first at `at`: y = softmax(q k^T) v.
void line(const List& q, const List& k, const List& v, std::size_t at, std::size_t n,
          std::size_t step, std::size_t width, List& y) {
  for (std::size_t i = 0; i < n; ++i) {
    List weight(n);
    double sum = 0;
    for (std::size_t j = 0; j < n; ++j) {
      double score = 0;
      for (std::size_t c = 0; c < width; ++c)
        score += q[(at + i * step) * width + c] * k[(at + j * step) * width + c];
      sum += weight[j] = std::exp(score);
    }
    for (std::size_t c = 0; c < width; ++c) {
      double mixed = 0;
      for (std::size_t j = 0; j < n; ++j) mixed += weight[j] * v[(at + j * step) * width + c];
      y[(at + i * step) * width + c] = mixed / sum;
    }
  }
}

}  // namespace

List attention(const List& q, const List& k, const List& v, long tokens, long width) {
  List y(v.size());
  line(q, k, v, 0, static_cast<std::size_t>(tokens), 1, static_cast<std::size_t>(width), y);
  return y;
}

List criss_cross(const List& q, const List& k, const List& v, long side, long width) {
  const std::size_t n = static_cast<std::size_t>(side), d = static_cast<std::size_t>(width);
  const auto rows = [&](const List& x) {
    List y(x.size());
    for (std::size_t i = 0; i < n; ++i) line(q, k, x, i * n, n, 1, d, y);
    return y;
  };
  const auto columns = [&](const List& x) {
    List y(x.size());
    for (std::size_t i = 0; i < n; ++i) line(q, k, x, i, n, n, d, y);
    return y;
  };
  const List a = columns(rows(v)), b = rows(columns(v));
  List y(v.size());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = 0.5 * (a[i] + b[i]);
  return y;
}

}  // namespace fast_math
