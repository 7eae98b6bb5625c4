// Decayed sums by their kernels and composed of operations, at the sizes that they have in ppma_nano
// and ppma_tiny with retention and with state space duality, on images of 224 x 224: a table in
// Markdown. Milliseconds of one thread (its processor time, the least of rounds that alternate
// between the two), forward alone and both ways, and how far the kernels are from their floor: the
// multiply-adds that kernels/cpu/decayed_sums.hpp counts, at the best rate of a product of 1024^3 in
// the same program. Both must agree before anything is timed.
//
// Compiled once for each instruction set (decayed_sums_bench_sse2, _avx2, _avx512, _native).
//
//   build/release/benchmarks/decayed_sums_bench_avx2 [seconds a row]     default: 1

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "ppma/core/parallel.hpp"
#include "ppma/ops/decayed_sums.hpp"
#include "ppma/ops/matmul.hpp"

using namespace ppma;

namespace {

struct Row {
  std::string name;
  i64 batch, tokens, heads, d, p;
  bool dual;  // q and k shared, decays learnt
};

std::vector<Row> rows() {
  std::vector<Row> all;
  const i64 heads[2][4] = {{2, 2, 3, 4}, {4, 4, 8, 16}},
            channels[2][4] = {{32, 64, 96, 128}, {64, 128, 256, 512}};
  for (const bool dual : {false, true})
    for (int net = 0; net < 2; ++net)
      for (int stage = 0; stage < 4; ++stage) {
        const i64 side = 56 >> stage, g = heads[net][stage], width = channels[net][stage] / g;
        all.push_back({str(dual ? "`mamba2`" : "`retnet`", net == 0 ? ", nano, " : ", tiny, ",
                           "stage ", stage + 1),
                       stage < 2 ? 1 : 4, side * side, g, dual ? 64 : width,
                       dual ? 2 * width : width, dual});
      }
  return all;
}

double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double least(const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); }

// Multiply-adds a second.
double rate() {
  Rng rng(1);
  const Tensor a = Tensor::randn({1024, 1024}, rng), b = Tensor::randn({1024, 1024}, rng);
  std::vector<double> seconds;
  for (int i = 0; i < 40; ++i) {
    const double begin = now();
    matmul(a, b);
    seconds.push_back(now() - begin);
  }
  return 0x1p30 / least(seconds);
}

// Multiply-adds forward and backward.
std::pair<double, double> floor_of(const Row& r) {
  const double d = static_cast<double>(r.d), p = static_cast<double>(r.p),
               Q = static_cast<double>(r.tokens <= 64 ? r.tokens : 32),
               of_keys = r.dual ? d / static_cast<double>(r.heads) : d,
               states = r.tokens <= 64 ? 0 : d * p,
               all = static_cast<double>(r.batch * r.tokens * r.heads);
  return {all * (Q * (of_keys + p) / 2 + 2 * states),
          all * (Q * (3 * of_keys + 2 * p) / 2 + 4 * states)};
}

struct Side {
  std::vector<Tensor> in;  // q, k, v, log decays, of which the first `differentiated` are
  std::size_t differentiated;
  bool kernels;

  Tensor forward() const {
    return kernels ? decayed_sums(in[0], in[1], in[2], in[3])
                   : decayed_sums_composed(in[0], in[1], in[2], in[3]);
  }
  double seconds(const Tensor& dy) {
    const double begin = now();
    const Tensor y = forward();
    if (dy.defined()) y.backward(dy);
    const double took = now() - begin;
    for (Tensor& t : in) t.zero_grad();
    return took;
  }
};

void must_agree(const std::string& what, const Tensor& got, const Tensor& want) {
  double difference = 0, norm = 0;
  for (i64 i = 0; i < got.numel(); ++i) {
    const double w = static_cast<double>(want.data<float>()[i]),
                 e = static_cast<double>(got.data<float>()[i]) - w;
    difference += e * e, norm += w * w;
  }
  if (std::sqrt(difference / norm) < 1e-5) return;
  std::fprintf(stderr, "%s: kernels differ by %g\n", what.c_str(), std::sqrt(difference / norm));
  std::exit(1);
}

void race(const Row& r, double seconds, double macs_a_second) {
  Rng rng(2);
  const Shape keys{r.batch, r.tokens, r.dual ? 1 : r.heads, r.d},
      values{r.batch, r.tokens, r.heads, r.p};
  const std::vector<Tensor> in{Tensor::randn(keys, rng, 1 / std::sqrt(static_cast<double>(r.d))),
                               Tensor::randn(keys, rng), Tensor::randn(values, rng),
                               Tensor::rand({r.batch, r.tokens, r.heads}, rng, -0.3, 0)};
  const Tensor dy = Tensor::randn(values, rng);
  // forward alone of both, then both ways
  std::vector<Side> sides;
  for (const std::size_t differentiated : {std::size_t{0}, std::size_t{r.dual ? 4u : 3u}})
    for (const bool kernels : {true, false}) {
      sides.push_back({{}, differentiated, kernels});
      for (std::size_t i = 0; i < in.size(); ++i)
        sides.back().in.push_back(in[i].clone().requires_grad(i < differentiated));
    }
  for (std::size_t i = 2; i < 4; ++i) {
    sides[i].forward().backward(dy);
    if (i == 2) continue;
    must_agree(r.name, sides[0].forward(), sides[1].forward());
    for (std::size_t g = 0; g < sides[i].differentiated; ++g)
      must_agree(r.name, sides[2].in[g].grad(), sides[3].in[g].grad());
  }
  std::vector<double> times[4];
  for (const double end = now() + seconds; now() < end || times[3].size() < 5;)
    for (std::size_t i = 0; i < 4; ++i) times[i].push_back(sides[i].seconds(i < 2 ? Tensor() : dy));
  double ms[4];
  for (std::size_t i = 0; i < 4; ++i) ms[i] = 1e3 * least(times[i]);
  const auto [forward, backward] = floor_of(r);
  const double one = 1e3 * forward / macs_a_second, both = one + 1e3 * backward / macs_a_second;
  std::printf(
      "| %s | %d x %d | %d | %d x %d | %.2f | %.2f | **%.1f** | %.1f | %.2f | %.2f | **%.1f** | "
      "%.1f |\n",
      r.name.c_str(), static_cast<int>(r.batch), static_cast<int>(r.tokens),
      static_cast<int>(r.heads), static_cast<int>(r.d), static_cast<int>(r.p), ms[0], ms[1],
      ms[1] / ms[0], ms[0] / one, ms[2], ms[3], ms[3] / ms[2], ms[2] / both);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1;
  set_threads(1);
  const double macs_a_second = rate();
  std::printf(
      "%s, a product of 1024^3: %.1f G multiply-adds a second\n\n"
      "| | tokens | heads | d x p | forward: kernels, ms | composed | times as fast | times its "
      "floor "
      "| both ways: kernels, ms | composed | times as fast | times its floor |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
      PPMA_INSTRUCTION_SET, 1e-9 * macs_a_second);
  for (const Row& r : rows()) race(r, seconds, macs_a_second);
}
