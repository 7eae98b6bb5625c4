// Decayed sums by their kernels and composed of operations, at the sizes that they have in ppma_nano
// and ppma_tiny with retention and with state space duality, on images of 224 x 224: a table in
// Markdown. Milliseconds of one thread (its processor time, medians of rounds that alternate between
// the two), forward alone and both ways, and how far the kernels are from their floor: the
// multiply-adds that kernels/cpu/decayed_sums.hpp counts, at the rate of products of 1024^3 between
// these rounds. Both must agree before anything is timed.
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

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// Seconds of a product of 1024^3.
double product() {
  static Rng rng(1);
  static const Tensor a = Tensor::randn({1024, 1024}, rng), b = Tensor::randn({1024, 1024}, rng);
  const double begin = now();
  matmul(a, b);
  return now() - begin;
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

void race(const Row& r, double seconds) {
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
  const auto [forward, backward] = floor_of(r);
  // Of each block of rounds, which is as fast as the machine is just then: medians, and the floor at
  // the rate of its product.
  std::vector<double> ms[4], faster[2], of_floor[2];
  for (const double end = now() + seconds; now() < end || ms[0].size() < 5;) {
    const double mac = product() / 0x1p30;
    std::vector<double> took[4];
    for (int round = 0; round < 8; ++round)  // the first finds the product's matrices in the cache
      for (std::size_t i = 0; i < 4; ++i) {
        const double one = sides[i].seconds(i < 2 ? Tensor() : dy);
        if (round > 0) took[i].push_back(one);
      }
    for (std::size_t i = 0; i < 4; ++i) ms[i].push_back(1e3 * median(took[i]));
    for (std::size_t way = 0; way < 2; ++way) {
      const double kernels = median(took[2 * way]);
      faster[way].push_back(median(took[2 * way + 1]) / kernels);
      of_floor[way].push_back(kernels / (mac * (forward + (way == 0 ? 0 : backward))));
    }
  }
  std::printf("| %s | %d x %d | %d | %d x %d |", r.name.c_str(), static_cast<int>(r.batch),
              static_cast<int>(r.tokens), static_cast<int>(r.heads), static_cast<int>(r.d),
              static_cast<int>(r.p));
  for (std::size_t way = 0; way < 2; ++way)
    std::printf(" %.2f | %.2f | **%.1f** | %.1f |", median(ms[2 * way]), median(ms[2 * way + 1]),
                median(faster[way]), median(of_floor[way]));
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1;
  set_threads(1);
  std::printf(
      "%s\n\n"
      "| | tokens | heads | d x p | forward: kernels, ms | composed | times as fast | times its "
      "floor "
      "| both ways: kernels, ms | composed | times as fast | times its floor |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
      PPMA_INSTRUCTION_SET);
  for (const Row& r : rows()) race(r, seconds);
}
