// Each mixer against its formula, written down with plain loops.

#include <algorithm>
#include <utility>

#include "mixers/help.hpp"

using namespace mixers_test;

namespace {

constexpr std::size_t u(i64 n) { return static_cast<std::size_t>(n); }

}  // namespace

TEST_CASE("mixer none: tokens stay what they are", "[mixers]") {
  Mixer m = mixer("none", {8, 2});
  const Tensor x = tokens({2, 3, 4, 8});
  CHECK(m.forward(x).to_vector<double>() == x.to_vector<double>());
  CHECK(parameter_count(m) == 0);
}

TEST_CASE("mixer mambaout: the gated convolution, written down", "[mixers]") {
  Mixer m = mixer("mambaout", {12, 2});
  const Weights w(m);
  const Tensor x = tokens({1, 5, 4, 12});
  const Numbers both = layer(w, "fc1", x.to_vector<double>(), 20);
  const Numbers conv = depthwise(w, "conv", part(both, 32, 0, 16), 5, 4, 7);
  Numbers gated = part(both, 32, 16, 16);
  for (std::size_t i = 0; i < gated.size(); ++i) gated[i] = gauss_gelu(gated[i]) * conv[i];
  CHECK(distance_from(m.forward(x), layer(w, "fc2", gated, 20)) < 1e-13);
}

TEST_CASE("mixer window: attention among the tokens of a window, written down", "[mixers]") {
  // grids that are one window, whole windows, and neither; windows that are moved
  for (const i64 block : {0, 1})
    for (const Shape& shape :
         {Shape{1, 3, 4, 8}, Shape{1, 14, 7, 8}, Shape{1, 9, 15, 8}, Shape{1, 8, 8, 8}}) {
      INFO(shape.str() << " block " << block);
      Mixer m = mixer("window", {8, 2, 0, block});
      const Weights w(m);
      const Tensor x = tokens(shape);
      const i64 H = shape[1], W = shape[2], n = H * W;
      const i64 side_h = std::min<i64>(H, 7), side_w = std::min<i64>(W, 7);
      const i64 up = block == 1 && H > 7 ? 3 : 0, left = block == 1 && W > 7 ? 3 : 0;
      const Numbers qkv = layer(w, "qkv", x.to_vector<double>(), u(n));
      const Numbers& table = w["bias_table"];
      // The borders of moved windows lie `up` rows higher; the first one is what is left over.
      const auto window = [](i64 at, i64 moved, i64 side) { return (at - moved + side) / side; };
      const auto together = [&](i64 a, i64 b) {
        return window(a / W, up, side_h) == window(b / W, up, side_h) &&
               window(a % W, left, side_w) == window(b % W, left, side_w);
      };
      Numbers y(u(n * 8), 0);
      for (i64 a = 0; a < n; ++a)
        for (i64 g = 0; g < 2; ++g) {
          Numbers score(u(n), 0);
          double sum = 0;
          for (i64 b = 0; b < n; ++b) {
            if (!together(a, b)) continue;
            double dot = 0;
            for (i64 c = 4 * g; c < 4 * g + 4; ++c)
              dot += qkv[u(a * 24 + c)] * qkv[u(b * 24 + 8 + c)];
            const i64 relative = (a / W - b / W + 6) * 13 + a % W - b % W + 6;
            score[u(b)] = std::exp(dot / 2 + table[u(relative * 2 + g)]);
            sum += score[u(b)];
          }
          for (i64 b = 0; b < n; ++b)
            for (i64 c = 4 * g; c < 4 * g + 4; ++c)
              y[u(a * 8 + c)] += score[u(b)] / sum * qkv[u(b * 24 + 16 + c)];
        }
      CHECK(distance_from(m.forward(x), layer(w, "proj", y, u(n))) < 1e-12);
    }
}

TEST_CASE("mixer retnet: retention, written down", "[mixers]") {
  // few tokens: by all pairs; many: by the recurrence
  for (const Shape& shape : {Shape{1, 3, 4, 8}, Shape{1, 5, 6, 8}}) {
    Mixer m = mixer("retnet", {8, 2});
    const Weights w(m);
    const Tensor x = tokens(shape);
    const i64 n = shape[1] * shape[2];
    const Numbers in = x.to_vector<double>();
    const auto turned = [&](Numbers t) {  // pairs (2m,2m+1) of a head, by place * 10000^-m/(d/2-1)
      for (i64 a = 0; a < n; ++a)
        for (i64 c = 0; c < 8; c += 2) {
          const double angle = static_cast<double>(a) * (c % 4 == 0 ? 1 : 1e-4);
          double &p = t[u(a * 8 + c)], &q = t[u(a * 8 + c + 1)];
          const double first = p * std::cos(angle) - q * std::sin(angle);
          q = q * std::cos(angle) + p * std::sin(angle), p = first;
        }
      return t;
    };
    const Numbers q = turned(layer(w, "q_proj", in, u(n))),
                  k = turned(layer(w, "k_proj", in, u(n))), v = layer(w, "v_proj", in, u(n));
    Numbers y(u(n * 8), 0);
    for (i64 t = 0; t < n; ++t)
      for (i64 s = 0; s <= t; ++s)
        for (i64 g = 0; g < 2; ++g) {
          double dot = 0;
          for (i64 c = 4 * g; c < 4 * g + 4; ++c) dot += q[u(t * 8 + c)] * k[u(s * 8 + c)] / 2;
          const double gamma = 1 - std::pow(2.0, -5 - static_cast<double>(g));
          for (i64 c = 4 * g; c < 4 * g + 4; ++c)
            y[u(t * 8 + c)] += std::pow(gamma, static_cast<double>(t - s)) * dot * v[u(s * 8 + c)];
        }
    y = normed(y, 4, 1e-6);
    const Numbers gate = layer(w, "g_proj", in, u(n));
    for (std::size_t i = 0; i < y.size(); ++i)
      y[i] = swish(gate[i]) * (y[i] * w["norm.weight"][i % 8] + w["norm.bias"][i % 8]);
    // the decays of a configuration are f32
    CHECK(distance_from(m.forward(x), layer(w, "out_proj", y, u(n))) < 1e-6);
  }
}

namespace {

// What Mamba's selection does with tokens u (n,E) of which `before` lists, for each token in the
// order of the scan, what adds to its state: the state of a token is e^(D_t A) (states of those
// before it, through `carry`) + D_t B_t u_t.
struct PlainSelection {
  std::size_t E, S, R;
  Numbers u, p, dt;
  const Weights& w;
  std::string name;

  PlainSelection(const Weights& weights, const std::string& scan, const Numbers& tokens)
      : E(weights[scan + "D"].size()),
        S(weights[scan + "A_log"].size() / E),
        R(weights[scan + "dt_weight"].size() / E),
        u(tokens),
        p(times(tokens, tokens.size() / E, weights[scan + "x_proj"])),
        w(weights),
        name(scan) {
    dt = times(part(p, R + 2 * S, 0, R), u.size() / E, w[name + "dt_weight"], w[name + "dt_bias"]);
    for (double& x : dt) x = soft_plus(x);
  }
  double decay(std::size_t t, std::size_t e, std::size_t s) const {
    return std::exp(-dt[t * E + e] * std::exp(w[name + "A_log"][e * S + s]));
  }
  double input(std::size_t t, std::size_t e, std::size_t s) const {
    return dt[t * E + e] * p[t * (R + 2 * S) + R + s] * u[t * E + e];
  }
  // h (n,E,S) -> y (n,E)
  Numbers observe(const Numbers& h) const {
    Numbers y(u.size());
    for (std::size_t k = 0; k < y.size(); ++k) {
      y[k] = w[name + "D"][k % E] * u[k];
      for (std::size_t s = 0; s < S; ++s) y[k] += p[k / E * (R + 2 * S) + R + S + s] * h[k * S + s];
    }
    return y;
  }
  // Token after token.
  Numbers line() const {
    Numbers h(u.size() * S);
    for (std::size_t t = 0; t < u.size() / E; ++t)
      for (std::size_t e = 0; e < E; ++e)
        for (std::size_t s = 0; s < S; ++s)
          h[(t * E + e) * S + s] =
              input(t, e, s) + (t == 0 ? 0 : decay(t, e, s) * h[((t - 1) * E + e) * S + s]);
    return h;
  }
};

Numbers each(Numbers x, double (*f)(double)) {
  for (double& a : x) a = f(a);
  return x;
}
Numbers product(Numbers x, const Numbers& y) {
  for (std::size_t i = 0; i < x.size(); ++i) x[i] *= y[i];
  return x;
}
// A layer norm of a mixer.
Numbers layer_normed(const Weights& w, const std::string& name, const Numbers& x) {
  const std::size_t row = w[name + ".weight"].size();
  Numbers y = normed(x, row, 1e-5);
  for (std::size_t i = 0; i < y.size(); ++i)
    y[i] = y[i] * w[name + ".weight"][i % row] + w[name + ".bias"][i % row];
  return y;
}

constexpr i64 height = 5, width = 4;  // of the grids below, with 6 channels

}  // namespace

TEST_CASE("mixer vmamba: four scans, written down", "[mixers]") {
  Mixer m = mixer("vmamba", {6, 1});
  const Weights w(m);
  const Tensor x = tokens({1, height, width, 6});
  const Numbers in = layer(w, "in_proj", x.to_vector<double>(), 20);
  const Numbers u = each(depthwise(w, "conv", in, height, width, 3), swish);
  Numbers y(u.size(), 0);
  for (int way = 0; way < 4; ++way) {
    std::vector<std::size_t> order;  // of the tokens
    if (way % 2 == 0)
      for (std::size_t t = 0; t < 20; ++t) order.push_back(t);
    else
      for (std::size_t j = 0; j < 4; ++j)
        for (std::size_t i = 0; i < 5; ++i) order.push_back(i * 4 + j);
    if (way >= 2) std::reverse(order.begin(), order.end());
    Numbers line;
    for (const std::size_t t : order)
      line.insert(line.end(), u.begin() + static_cast<std::ptrdiff_t>(t * 12),
                  u.begin() + static_cast<std::ptrdiff_t>(t * 12 + 12));
    const PlainSelection scan(w, "scans." + std::to_string(way) + ".", line);
    CHECK(scan.S == 1);
    const Numbers out = scan.observe(scan.line());
    for (std::size_t k = 0; k < 20; ++k)
      for (std::size_t e = 0; e < 12; ++e) y[order[k] * 12 + e] += out[k * 12 + e];
  }
  CHECK(distance_from(m.forward(x), layer(w, "out_proj", layer_normed(w, "out_norm", y), 20)) <
        1e-12);
}

TEST_CASE("mixer two_d_mamba: along the rows, then down the columns, written down", "[mixers]") {
  Mixer m = mixer("two_d_mamba", {6, 1});
  const Weights w(m);
  const Tensor x = tokens({1, height, width, 6});
  const Numbers both = layer(w, "in_proj", x.to_vector<double>(), 20);
  const Numbers u = each(depthwise(w, "conv", part(both, 24, 0, 12), height, width, 3), swish);
  const PlainSelection scan(w, "scan.", u);
  CHECK(scan.S == 16);
  Numbers g(u.size() * scan.S), h = g;
  for (std::size_t t = 0; t < 20; ++t)
    for (std::size_t e = 0; e < 12; ++e)
      for (std::size_t s = 0; s < scan.S; ++s) {
        const std::size_t at = (t * 12 + e) * scan.S + s, one = 12 * scan.S;
        const double decay = scan.decay(t, e, s);
        g[at] = scan.input(t, e, s) + (t % 4 == 0 ? 0 : decay * g[at - one]);
        h[at] = g[at] + (t < 4 ? 0 : decay * h[at - 4 * one]);
      }
  const Numbers y = product(scan.observe(h), each(part(both, 24, 12, 12), swish));
  CHECK(distance_from(m.forward(x), layer(w, "out_proj", y, 20)) < 1e-12);
}

TEST_CASE("mixer spatial_mamba: states of the tokens around, written down", "[mixers]") {
  Mixer m = mixer("spatial_mamba", {6, 1});
  const Weights w(m);
  const i64 H = 9, W = 7;
  const Tensor x = tokens({1, H, W, 6});
  const Numbers both = layer(w, "in_proj", x.to_vector<double>(), u(H * W));
  const Numbers in =
      each(depthwise(w, "conv", part(both, 24, 0, 12), static_cast<int>(H), static_cast<int>(W), 3),
           swish);
  const PlainSelection scan(w, "scan.", in);
  CHECK(scan.S == 1);
  const Numbers states = scan.line();
  Numbers h(states.size(), 0);
  for (i64 i = 0; i < H; ++i)
    for (i64 j = 0; j < W; ++j)
      for (i64 e = 0; e < 12; ++e)
        for (i64 k = 0; k < 3; ++k)
          for (i64 a = -1; a <= 1; ++a)
            for (i64 b = -1; b <= 1; ++b) {
              const i64 row = i + a * (2 * k + 1), column = j + b * (2 * k + 1);
              if (row < 0 || row >= H || column < 0 || column >= W) continue;
              h[u((i * W + j) * 12 + e)] += w["fusion"][u(e * 27 + k * 9 + (a + 1) * 3 + b + 1)] *
                                            states[u((row * W + column) * 12 + e)];
            }
  const Numbers y =
      product(layer_normed(w, "out_norm", scan.observe(h)), each(part(both, 24, 12, 12), swish));
  CHECK(distance_from(m.forward(x), layer(w, "out_proj", y, u(H * W))) < 1e-12);
}

TEST_CASE("mixer mamba2: state space duality, written down as a recurrence", "[mixers]") {
  // S p = 64 * 8 numbers a head: few tokens are summed by pairs, many by the recurrence
  for (const Shape& shape : {Shape{1, 4, 3, 8}, Shape{1, 23, 23, 8}}) {
    Mixer m = mixer("mamba2", {8, 2});
    const Weights w(m);
    const Tensor x = tokens(shape);
    const std::size_t n = u(shape[1] * shape[2]), E = 16, S = 64, G = 2, all = E + 2 * S;
    const Numbers p = times(x.to_vector<double>(), n, w["in_proj.weight"]);
    const std::size_t row = 2 * E + 2 * S + G;
    Numbers seen(n * all), dt(n * G), y(n * E);
    for (std::size_t t = 0; t < n; ++t) {
      for (std::size_t c = 0; c < all; ++c) {
        double sum = w["conv.bias"][c];
        for (std::size_t k = 0; k < 4; ++k)
          if (t + k >= 3) sum += w["conv.weight"][k * all + c] * p[(t + k - 3) * row + E + c];
        seen[t * all + c] = swish(sum);
      }
      for (std::size_t g = 0; g < G; ++g)
        dt[t * G + g] = soft_plus(p[t * row + E + all + g] + w["dt_bias"][g]);
    }
    Numbers h(G * S * 8, 0);  // states of each head, (S,p)
    for (std::size_t t = 0; t < n; ++t)
      for (std::size_t g = 0; g < G; ++g) {
        const double step = dt[t * G + g], decay = std::exp(-std::exp(w["A_log"][g]) * step);
        for (std::size_t c = 0; c < 8; ++c) {
          const double v = seen[t * all + g * 8 + c];
          double out = w["D"][g] * v;
          for (std::size_t s = 0; s < S; ++s) {
            double& state = h[(g * S + s) * 8 + c];
            state = decay * state + step * seen[t * all + E + s] * v;
            out += seen[t * all + E + S + s] * state;
          }
          y[t * E + g * 8 + c] = out * swish(p[t * row + g * 8 + c]);
        }
      }
    for (std::size_t t = 0; t < n; ++t) {
      double squares = 0;
      for (std::size_t e = 0; e < E; ++e) squares += y[t * E + e] * y[t * E + e] / double(E);
      for (std::size_t e = 0; e < E; ++e)
        y[t * E + e] *= w["norm.weight"][e] / std::sqrt(squares + 1e-5);
    }
    CHECK(distance_from(m.forward(x), times(y, n, w["out_proj.weight"])) < 1e-12);
  }
}

TEST_CASE("mixer vicinity: attention by distance, written down with all pairs", "[mixers]") {
  Mixer m = mixer("vicinity", {8, 2});
  const Weights w(m);
  const Tensor x = tokens({1, height, width, 8});
  const Numbers in = x.to_vector<double>();
  const auto positive = [](double a) { return a > 0 ? a : 0; };
  const Numbers q = each(layer(w, "q_proj", in, 20), positive),
                k = each(layer(w, "k_proj", in, 20), positive), v = layer(w, "v_proj", in, 20);
  const double quarter = std::acos(-1.0) / 2;
  Numbers y(20 * 4, 0);
  for (std::size_t a = 0; a < 20; ++a)
    for (std::size_t g = 0; g < 2; ++g) {
      double sum = 1e-4, sums[2] = {0, 0};
      for (std::size_t b = 0; b < 20; ++b) {
        const double rows = double(a / 4) - double(b / 4), columns = double(a % 4) - double(b % 4);
        const double near_by = std::cos(quarter * rows / 5) + std::cos(quarter * columns / 4);
        const double s = near_by * (q[a * 4 + 2 * g] * k[b * 4 + 2 * g] +
                                    q[a * 4 + 2 * g + 1] * k[b * 4 + 2 * g + 1]);
        sum += s;
        for (std::size_t c = 0; c < 2; ++c) sums[c] += s * v[b * 4 + 2 * g + c];
      }
      for (std::size_t c = 0; c < 2; ++c) y[a * 4 + 2 * g + c] = sums[c] / sum;
    }
  Numbers z = layer(w, "out_proj", y, 20), mean(8, 0);
  for (std::size_t i = 0; i < in.size(); ++i) mean[i % 8] += in[i] / 20;
  const Numbers said =
      each(times(each(times(mean, 1, w["squeeze"]), positive), 1, w["excite"]), logistic);
  for (std::size_t i = 0; i < z.size(); ++i) z[i] *= 1 + said[i % 8];
  CHECK(distance_from(m.forward(x), z) < 1e-12);
}

TEST_CASE("mixer biformer: regions look for regions, written down", "[mixers]") {
  for (const i64 stage : {0, 1, 3}) {
    Mixer m = mixer("biformer", {8, 2, stage});
    const Weights w(m);
    const i64 H = 10, W = 8, rows = 5, columns = 4;  // the most that are no more than 7 and divide
    const i64 regions = rows * columns, n = H * W;
    const i64 taken = stage == 0 ? 1 : stage == 1 ? 4 : regions;
    const Tensor x = tokens({1, H, W, 8});
    const Numbers qkv = layer(w, "qkv", x.to_vector<double>(), u(n)), v = part(qkv, 24, 16, 8);
    const auto region = [&](i64 t) { return t / W / 2 * columns + t % W / 2; };
    Numbers means(u(regions * 16), 0);  // of q and k, four tokens each
    for (i64 t = 0; t < n; ++t)
      for (i64 c = 0; c < 16; ++c) means[u(region(t) * 16 + c)] += qkv[u(t * 24 + c)] / 4;
    Numbers y = depthwise(w, "lepe", v, static_cast<int>(H), static_cast<int>(W), 5);
    for (i64 a = 0; a < n; ++a) {
      std::vector<std::pair<double, i64>> answers;
      for (i64 r = 0; r < regions; ++r) {
        double dot = 0;
        for (i64 c = 0; c < 8; ++c) dot += means[u(region(a) * 16 + c)] * means[u(r * 16 + 8 + c)];
        answers.emplace_back(-dot, r);
      }
      std::sort(answers.begin(), answers.end());
      for (i64 g = 0; g < 2; ++g) {
        double sum = 0, sums[4] = {0, 0, 0, 0};
        for (i64 b = 0; b < n; ++b) {
          bool routed = false;
          for (i64 k = 0; k < taken; ++k) routed = routed || answers[u(k)].second == region(b);
          if (!routed) continue;
          double dot = 0;
          for (i64 c = 4 * g; c < 4 * g + 4; ++c)
            dot += qkv[u(a * 24 + c)] * qkv[u(b * 24 + 8 + c)];
          sum += std::exp(dot / 2);
          for (i64 c = 0; c < 4; ++c) sums[c] += std::exp(dot / 2) * v[u(b * 8 + 4 * g + c)];
        }
        for (i64 c = 0; c < 4; ++c) y[u(a * 8 + 4 * g + c)] += sums[c] / sum;
      }
    }
    CHECK(distance_from(m.forward(x), layer(w, "out_proj", y, u(n))) < 1e-12);
  }
}
