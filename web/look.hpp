#pragma once
// What one query token of a picture sees under each mask: its row of the mask, of attention without
// and with it. One row is all that the page shows, so nothing here is N x N: row u of a mask M is
// M^T e_u, a scan of the unit vector of token u (algorithm 1.6), O(N).
//
// There is no network here. Decays come from contrast, by the formula that a network applies to
// what it learnt (algorithm 1.2), and may be painted over; queries and keys are tokens' colours.

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/path.hpp"

namespace web {

using namespace ppma;

// The masks that the page offers, in its order.
enum class View { none, rmt, v2h, polyline, cross_scan, hilbert, one_way, linear };
inline constexpr int views = 8;

// The decay of RMT on the page, the same on every edge.
inline constexpr float rmt_decay = 0.9f;

class Look {
 public:
  std::vector<float> alpha, beta;          // n x n, in [0, 1]; the page paints on them
  std::vector<float> mask, plain, masked;  // n x n: of the query
  std::vector<std::vector<float>> rows;    // of the query, of each path or sequence of the mask
  std::vector<int> cells;                  // row, column, row, column, ...: the last path

  i64 n() const { return n_; }

  // Cuts a square picture, RGBA bytes, into n x n tokens and sets its decays.
  void tokens(const u8* rgba, i64 side, i64 n, double contrast) {
    check(n >= 2 && n <= 64 && side >= n, "the page's grid must be 2 to 64 tokens wide, not ", n);
    n_ = n;
    colour_.assign(size(), {});
    for (i64 i = 0; i < n; ++i)
      for (i64 j = 0; j < n; ++j) {
        Lab sum{};
        const i64 y0 = i * side / n, y1 = (i + 1) * side / n, x0 = j * side / n,
                  x1 = (j + 1) * side / n;
        for (i64 y = y0; y < y1; ++y)
          for (i64 x = x0; x < x1; ++x) {
            const Lab p = oklab(rgba + 4 * (y * side + x));
            for (std::size_t c = 0; c < 3; ++c) sum[c] += p[c];
          }
        const float pixels = static_cast<float>((y1 - y0) * (x1 - x0));
        for (std::size_t c = 0; c < 3; ++c) sum[c] /= pixels;
        colour_[at(i, j)] = sum;
      }
    decays(contrast);
    features();
  }

  // Decays from the contrast between neighbours: softplus(contrast |difference| + bias).
  void decays(double contrast) {
    alpha.assign(size(), 1);
    beta.assign(size(), 1);
    for (i64 i = 0; i < n_; ++i)
      for (i64 j = 0; j < n_; ++j) {
        if (j > 0) alpha[at(i, j)] = decay_between(at(i, j), at(i, j - 1), contrast);
        if (i > 0) beta[at(i, j)] = decay_between(at(i, j), at(i - 1, j), contrast);
      }
  }

  // What token (row, column) sees: mask, plain, masked, rows.
  void look(View view, i64 row, i64 column) {
    check(row >= 0 && row < n_ && column >= 0 && column < n_, "there is no token ", row, ", ",
          column, " in a grid of ", n_, " x ", n_);
    rows = mask_rows(view, row, column);
    const std::size_t u = at(row, column);
    const bool linear = view == View::linear;
    std::vector<float> weight(size());
    for (std::size_t t = 0; t < size(); ++t) weight[t] = linear ? kernel(u, t) : score(u, t);
    plain = shared_out(weight);
    mask.assign(size(), 0);
    masked.assign(size(), 0);
    const float part = 1 / static_cast<float>(rows.size());
    // Two softmaxes, each of its own path, and their mean (algorithm 2.1): the exponential of a
    // score plus a log mask is the weight times the mask. PPMLA has no softmax: one sum for both.
    std::vector<float> damped(size(), 0);
    for (const std::vector<float>& m : rows) {
      if (!linear) std::fill(damped.begin(), damped.end(), 0.f);
      for (std::size_t t = 0; t < size(); ++t) {
        mask[t] += part * m[t];
        damped[t] += weight[t] * m[t];
      }
      if (linear) continue;
      const std::vector<float> share = shared_out(damped);
      for (std::size_t t = 0; t < size(); ++t) masked[t] += part * share[t];
    }
    if (linear) masked = shared_out(damped);
  }

  // The tokens that path `which` (0 or 1) of a mask passes from key to query, into cells.
  void path(View view, int which, Cell key, Cell query) {
    cells.clear();
    const auto put = [this](i64 i, i64 j) {
      cells.push_back(static_cast<int>(i)), cells.push_back(static_cast<int>(j));
    };
    const std::vector<Paths> polylines = paths_of(view);
    if (view == View::cross_scan || view == View::hilbert) {
      const std::vector<i64> order = sequence(view, which);
      const auto place = [&](Cell c) {
        return std::find(order.begin(), order.end(), c.row * n_ + c.column) - order.begin();
      };
      const auto from = place(key), to = place(query);
      for (auto p = from;; p += to > from ? 1 : -1) {
        const i64 token = order[static_cast<std::size_t>(p)];
        put(token / n_, token % n_);
        if (p == to) break;
      }
    } else if (static_cast<std::size_t>(which) < polylines.size() &&
               (view != View::one_way || (key.row <= query.row && key.column <= query.column))) {
      for (const Cell c : polyline_path(key, query, polylines[static_cast<std::size_t>(which)]))
        put(c.row, c.column);
    }
  }

  // Log decays as the library wants them, (2,1,1,n,n).
  Tensor log_decays() const {
    std::vector<float> logs;
    for (const std::vector<float>* d : {&alpha, &beta})
      for (const float v : *d) logs.push_back(std::log(v));
    return Tensor::from<float>(logs, {2, 1, 1, n_, n_});
  }
  // What the scores of the two attentions are products of, (1,n,n,C): queries and keys of the
  // softmax, and the features of linear attention, which are both.
  Tensor queries() const {
    return by_token([](const Lab& c) { return query_of(c); });
  }
  Tensor keys() const {
    return by_token([](const Lab& c) { return key_of(c); });
  }
  Tensor linear_features() const { return Tensor::from<float>(phi_, {1, n_, n_, anchors}); }

 private:
  using Lab = std::array<float, 3>;       // Oklab
  static constexpr float sharpness = 60;  // of attention: a score is -sharpness |difference|^2
  static constexpr i64 anchors = 45;
  static constexpr double bias = -4;  // softplus(-4) = 0.018: a step on even ground

  i64 n_ = 0;
  std::vector<Lab> colour_;
  std::vector<float> phi_;  // n x n x anchors

  std::size_t size() const { return static_cast<std::size_t>(n_ * n_); }
  std::size_t at(i64 i, i64 j) const { return static_cast<std::size_t>(i * n_ + j); }

  static Lab oklab(const u8* rgb) {
    static const std::array<float, 256> light = [] {
      std::array<float, 256> t{};
      for (std::size_t v = 0; v < 256; ++v) {
        const float s = static_cast<float>(v) / 255;
        t[v] = s <= 0.04045f ? s / 12.92f : std::pow((s + 0.055f) / 1.055f, 2.4f);
      }
      return t;
    }();
    const float r = light[rgb[0]], g = light[rgb[1]], b = light[rgb[2]];
    const float l = std::cbrt(0.4122214708f * r + 0.5363325363f * g + 0.0514459929f * b),
                m = std::cbrt(0.2119034982f * r + 0.6806995451f * g + 0.1073969566f * b),
                s = std::cbrt(0.0883024619f * r + 0.2817188376f * g + 0.6299787005f * b);
    return {0.2104542553f * l + 0.7936177850f * m - 0.0040720468f * s,
            1.9779984951f * l - 2.4285922050f * m + 0.4505937099f * s,
            0.0259040371f * l + 0.7827717662f * m - 0.8086757660f * s};
  }
  static float squared_distance(const Lab& a, const Lab& b) {
    float sum = 0;
    for (std::size_t c = 0; c < 3; ++c) sum += (a[c] - b[c]) * (a[c] - b[c]);
    return sum;
  }
  float decay_between(std::size_t a, std::size_t b, double contrast) const {
    const double z = contrast * std::sqrt(squared_distance(colour_[a], colour_[b])) + bias;
    return static_cast<float>(std::exp(-std::log1p(std::exp(z))));
  }

  // -sharpness |a - b|^2 is, but for a part that all keys share, the product of these two.
  static std::array<float, 4> query_of(const Lab& c) {
    return {2 * sharpness * c[0], 2 * sharpness * c[1], 2 * sharpness * c[2], 1};
  }
  static std::array<float, 4> key_of(const Lab& c) {
    return {c[0], c[1], c[2], -sharpness * squared_distance(c, {})};
  }
  template <class F>
  Tensor by_token(F of) const {
    std::vector<float> all;
    for (const Lab& c : colour_)
      for (const float v : of(c)) all.push_back(v);
    return Tensor::from<float>(all, {1, n_, n_, 4});
  }
  // e^score over that of the query itself, so that none overflows.
  float score(std::size_t u, std::size_t t) const {
    return std::exp(-sharpness * squared_distance(colour_[u], colour_[t]));
  }
  // Linear attention needs positive features: bumps around a lattice of colours.
  void features() {
    phi_.clear();
    for (const Lab& c : colour_)
      for (int l = 0; l < 5; ++l)
        for (int a = -1; a <= 1; ++a)
          for (int b = -1; b <= 1; ++b) {
            const Lab anchor{0.25f * static_cast<float>(l), 0.12f * static_cast<float>(a),
                             0.12f * static_cast<float>(b)};
            phi_.push_back(std::exp(-sharpness * squared_distance(c, anchor)));
          }
  }
  float kernel(std::size_t u, std::size_t t) const {
    float sum = 0;
    for (std::size_t m = 0; m < anchors; ++m) sum += phi_[u * anchors + m] * phi_[t * anchors + m];
    return sum;
  }
  static std::vector<float> shared_out(std::vector<float> weight) {
    double sum = 0;
    for (const float w : weight) sum += static_cast<double>(w);
    for (float& w : weight) w = static_cast<float>(static_cast<double>(w) / sum);
    return weight;
  }

  static std::vector<Paths> paths_of(View view) {
    switch (view) {
      case View::v2h:
        return {Paths::v2h};
      case View::one_way:
        return {Paths::h2v};
      case View::rmt:  // both are as long as the Manhattan distance
      case View::polyline:
      case View::linear:
        return {Paths::v2h, Paths::h2v};
      default:
        return {};
    }
  }
  std::vector<i64> sequence(View view, int which) const {
    if (view == View::hilbert) return hilbert_order(n_, n_, which == 1);
    if (which == 1) return column_major_order(n_, n_);
    std::vector<i64> order;
    for (i64 t = 0; t < n_ * n_; ++t) order.push_back(t);
    return order;
  }

  std::vector<std::vector<float>> mask_rows(View view, i64 row, i64 column) const {
    if (view == View::none) return {std::vector<float>(size(), 1)};
    Tensor unit = Tensor::zeros({1, n_, n_, 1});
    unit.data<float>()[at(row, column)] = 1;
    if (view == View::cross_scan || view == View::hilbert)
      return {sequence_row(sequence(view, 0), alpha, at(row, column)),
              sequence_row(sequence(view, 1), beta, at(row, column))};
    if (view == View::one_way) {
      // 2DMamba has one decay for both axes: their geometric mean. Its matrix transposed scans the
      // other way, columns first.
      const Tensor logs = log_decays();
      const Tensor one =
          reshape(scale(log_alpha_of(logs) + log_beta_of(logs), 0.5), {1, n_, n_, 1});
      return {decay_scan(decay_scan(unit, one, 1, ScanDirection::backward), one, 2,
                         ScanDirection::backward)
                  .to_vector<float>()};
    }
    if (view == View::rmt) {
      const Tensor fixed = Tensor::from<float>({std::log(rmt_decay)}, Shape{1});
      return {
          apply_mask(unit, constant_log_decay(fixed, 1, n_, n_), Paths::v2h).to_vector<float>()};
    }
    std::vector<std::vector<float>> out;
    for (const Paths p : paths_of(view))  // row u of L is L^T e_u
      out.push_back(apply_mask(unit, log_decays(), p == Paths::v2h ? Paths::h2v : Paths::v2h)
                        .to_vector<float>());
    return out;
  }
  // Row u of the mask of a sequence: its mask is symmetric.
  std::vector<float> sequence_row(const std::vector<i64>& order, const std::vector<float>& decay,
                                  std::size_t u) const {
    std::vector<float> x, logs;
    for (const i64 token : order) {
      x.push_back(static_cast<std::size_t>(token) == u);
      logs.push_back(std::log(decay[static_cast<std::size_t>(token)]));
    }
    const Tensor y = decay_scan(Tensor::from<float>(x, Shape{n_ * n_}),
                                Tensor::from<float>(logs, Shape{n_ * n_}), 0);
    std::vector<float> row(size());
    for (std::size_t p = 0; p < size(); ++p)
      row[static_cast<std::size_t>(order[p])] = y.data<float>()[p];
    return row;
  }
};

}  // namespace web
