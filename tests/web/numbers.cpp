// The page's C++ on this machine. First: what it says of a query, a row at a time, is what the library says with all N x N numbers. Then
// it prints numbers that numbers.mjs prints from ppma.wasm.
#include <cstdio>

#include "../../web/ppma_web.cpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/masks.hpp"
#include "ppma/polyline/volume.hpp"

using namespace ppma;

namespace {

int failed = 0;

void near(const char* what, int view, double got, double want) {
  if (std::abs(got - want) <= 2e-5 * std::max(1.0, std::abs(want))) return;
  std::fprintf(stderr, "%s of mask %d: %.8g, by definition %.8g\n", what, view, got, want);
  ++failed;
}

// Sum of weight times channel c of a token, over all tokens (1,n,n,C).
double gathered(const std::vector<float>& weight, const Tensor& tokens, i64 c) {
  double sum = 0;
  for (std::size_t t = 0; t < weight.size(); ++t)
    sum += static_cast<double>(weight[t]) *
           static_cast<double>(tokens.data<float>()[static_cast<i64>(t) * tokens.dim(3) + c]);
  return sum;
}

void definitions() {
  const i64 n = 14, row = 9, column = 4, u = row * n + column;
  web_scene(0, 504);
  web_tokens(static_cast<int>(n), 30);
  Rng rng(3);
  for (std::vector<float>* d : {&look.alpha, &look.beta})
    for (float& v : *d) v *= static_cast<float>(0.8 + 0.2 * rng.uniform());
  look.alpha[50] = 0;  // closed
  const Tensor decays = look.log_decays(), q = look.queries(), k = look.keys(), v = look.keys(),
               phi = look.linear_features();
  const std::vector<MaskKind> kinds{MaskKind::none,     MaskKind::rmt,        MaskKind::v2h,
                                    MaskKind::polyline, MaskKind::cross_scan, MaskKind::hilbert};
  const Tensor fixed =
      constant_log_decay(Tensor::from<float>({std::log(web::rmt_decay)}, Shape{1}), 1, n, n);
  for (std::size_t view = 0; view < kinds.size(); ++view) {
    const int number = static_cast<int>(view);
    web_look(number, static_cast<int>(row), static_cast<int>(column));
    const Tensor& logs = kinds[view] == MaskKind::rmt ? fixed : decays;
    const std::vector<Tensor> all = ablation_log_masks(kinds[view], logs);
    if (kinds[view] != MaskKind::none && all.size() != look.rows.size()) ++failed;
    for (std::size_t r = 0; r < all.size(); ++r)
      for (std::size_t t = 0; t < look.mask.size(); ++t)
        near("a row", number, look.rows[r][t],
             std::exp(all[r].data<float>()[u * n * n + static_cast<i64>(t)]));
    const Tensor y = masked_whole_attention(q, k, v, 1, kinds[view], logs);
    for (i64 c = 0; c < y.dim(3); ++c)
      near("attention", number, gathered(look.masked, v, c), y.data<float>()[u * y.dim(3) + c]);
  }
  // 2DMamba: what arrives at the query of any x.
  web_look(static_cast<int>(web::View::one_way), static_cast<int>(row), static_cast<int>(column));
  const Tensor x = Tensor::randn({1, n, n, 1}, rng);
  const Tensor one = scale(log_alpha_of(decays) + log_beta_of(decays), 0.5);
  near("one-way scan", 6, gathered(look.mask, x, 0), one_way_scan(x, one).data<float>()[u]);
  // PPMLA: shares of a sum, so that results have one direction.
  web_look(static_cast<int>(web::View::linear), static_cast<int>(row), static_cast<int>(column));
  const Tensor y = linear_attention(phi, phi, phi, 1, decays);
  const float* at = y.data<float>() + u * phi.dim(3);
  double whole = 0, total = 0;
  for (i64 c = 0; c < phi.dim(3); ++c) {
    whole += static_cast<double>(at[c]);
    total += gathered(look.masked, phi, c);
  }
  for (i64 c = 0; c < phi.dim(3); ++c)
    near("linear attention", 7, gathered(look.masked, phi, c) / total,
         static_cast<double>(at[c]) / whole);
}

void say(const char* name, double value) { std::printf("%s %.9g\n", name, value); }

void numbers() {
  for (const int n : {14, 28, 56}) {
    web_scene(0, 504);
    web_tokens(n, 30);
    for (int view = 0; view < web::views; ++view) {
      web_look(view, n * 2 / 3, n * 7 / 10);
      for (int which = 0; which < 5; ++which) {
        double weighed = 0;  // so that no two tokens can change places
        for (int t = 0; t < n * n; ++t)
          weighed += static_cast<double>(web_map(which)[t]) * (1 + t % 7 + t / n % 5);
        say(str("look ", n, " ", view, " ", which).c_str(), weighed);
      }
      say(str("path ", n, " ", view).c_str(), web_path(view, 0, 2, 3, n * 2 / 3, n * 7 / 10));
    }
  }
  web_look(99, 0, 0);
  say("error", static_cast<double>(std::string(web_error()).size()));
  web_learn_start(1);
  for (int step = 0; step < 3; ++step) say(str("loss ", step).c_str(), web_learn_step());
  const int n = web_learn_see(3, 0.5, 0.5);
  for (int which = 0; which < 5; ++which) {
    double sum = 0;
    for (int t = 0; t < n * n; ++t) sum += static_cast<double>(web_learn_map(which)[t]);
    say(str("learnt ", which).c_str(), sum);
  }
}

}  // namespace

int main() {
  definitions();
  numbers();
  return failed != 0;
}
