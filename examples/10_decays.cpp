// 10: where decays come from. A token's own features say how much the steps to its left and upper
// neighbours cost:
//
//   z = w . x                evidence
//   s = softplus(z + b)      a cost, never negative
//   decay = exp(-e^A s)      in (0, 1]
//
// First with numbers, for one token. Then w, b and A learn by gradient to smooth noisy pictures by
// the mask alone. Nobody says where contours are; but a mean over one is wrong, so their decays
// fall. It takes features that a convolution has mixed: an edge lies between two tokens.
//
//   10_decays [PICTURE.png]

#include "check.hpp"
#include "lesson_sheet.hpp"
#include "ppma/io/image.hpp"
#include "ppma/nn/init.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/vis/panels.hpp"

using namespace ppma;

namespace {

Tensor number(double v) { return Tensor::full({1}, v, DType::f64); }

struct Decays {
  bool mixed;  // features
  Tensor w = parameter(Tensor::zeros({2, 5}, DType::f64)), b = parameter(number(-3)),
         a_log = parameter(number(0));
  Tensor of(const Tensor& x) const { return log_decay(sheet_features(x, mixed), w, b, a_log); }
};

// All scores are 0: the mean of what the mask lets a token see.
Tensor smoothed(const Tensor& x, const Tensor& log_decays) {
  return whole_attention(scale(x, 0), scale(x, 0), x, 1, log_decays);
}

Decays learn(bool mixed) {
  Decays d{mixed};
  AdamW optimizer(parameters_with_rules({{"w", d.w}, {"b", d.b}, {"A_log", d.a_log}}, {{}}));
  for (u64 step = 0; step < 200; ++step) {
    const Sheet s = make_sheet(step);
    const Tensor off = smoothed(s.noisy, d.of(s.noisy)) - s.clean;
    mean(off * off).backward();
    optimizer.step(0.1);
    optimizer.zero_grad();
  }
  return d;
}

// On new sheets: the error that is left, and the mean alpha across contours and elsewhere.
struct Result {
  double error = 0, contour = 0, elsewhere = 0;
};
Result test(const Decays& d) {
  Result r;
  for (u64 index = 1000; index < 1020; ++index) {
    const Sheet s = make_sheet(index);
    const Tensor logs = d.of(s.noisy), off = smoothed(s.noisy, logs) - s.clean;
    r.error += mean(off * off).item() / 20;
    r.contour += mean_alpha(s, logs, true) / 20, r.elsewhere += mean_alpha(s, logs, false) / 20;
  }
  return r;
}

Picture draw(const std::vector<Decays>& learnt) {
  const Sheet s = make_sheet(1008);
  std::vector<std::vector<Panel>> rows;
  const auto map = [](const std::string& title, const Tensor& log_decay) {
    return map_panel(title, reshape(exp(log_decay), {sheet_side, sheet_side}), ColorMap::viridis,
                     {0, 1});
  };
  for (const Decays& d : learnt) {
    const Tensor logs = d.of(s.noisy);
    const std::string of = d.mixed ? " of mixed features" : " of its own colour";
    rows.push_back({image_panel("noise", sheet_photo(s.noisy)),
                    map("alpha" + of, log_alpha_of(logs)), map("beta" + of, log_beta_of(logs)),
                    image_panel("smoothed", sheet_photo(smoothed(s.noisy, logs)))});
  }
  return panels(rows, {.size = 192});
}

}  // namespace

int main(int argc, char** argv) {
  // One token of two channels; the second says "not as my left neighbour".
  const double x[] = {0.3, 2}, w[] = {0.1, 1.5}, b = -2, a_log = 0.1;
  const double z = w[0] * x[0] + w[1] * x[1], s = std::log1p(std::exp(z + b));
  const double decay = std::exp(-std::exp(a_log) * s);
  std::printf("z %.2f, softplus(z + b) %.3f, e^A %.3f: decay %.3f\n", z, s, std::exp(a_log), decay);
  const Tensor one = log_decay(Tensor::from<double>({0.3, 2}, {1, 1, 1, 2}),
                               Tensor::from<double>({0.1, 1.5}, {1, 2}), number(b), number(a_log));
  expect(std::fabs(std::exp(one.item()) - decay) < 1e-15, "log_decay() computes the same");

  const std::vector<Decays> learnt{learn(true), learn(false)};
  const NoGrad off;
  const Result mixed = test(learnt[0]), alone = test(learnt[1]);
  const double* u = learnt[0].w.data<double>();
  std::printf(
      "\nsquared error (noise: 0.010)    alpha across contours, elsewhere\n"
      "  features mixed      %.4f      %.2f  %.2f\n  own colour alone    %.4f      %.2f  %.2f\n",
      mixed.error, mixed.contour, mixed.elsewhere, alone.error, alone.contour, alone.elsewhere);
  std::printf("alpha's w: %.1f for the difference to the left, %.1f above; beta's: %.1f, %.1f\n",
              u[3], u[4], u[8], u[9]);
  expect(mixed.contour < 0.2 && mixed.elsewhere > 0.4, "decays have learnt to fall at contours");
  expect(std::fabs(alone.contour - alone.elsewhere) < 0.05, "a token alone sees no contour");
  expect(mixed.error < alone.error / 3, "and leaves more than three times the error");
  if (argc > 1) write_png(argv[1], draw(learnt).image());
  return failures;
}

// Exercises (solutions/09_12.cpp):
//   1. Which decay has a token whose z is very large? Which b gives 0.9 if z = 0 and A = 1?
//   2. Learn on sheets without noise. What becomes of the decays, and why?
