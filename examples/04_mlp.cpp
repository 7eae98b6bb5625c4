// 04: a small network learns two spirals that no straight line separates.
//
// Three ideas make a training loop: the forward pass gives a loss, backward() gives its derivative
// with respect to every weight, and each weight takes a small step against its derivative. Here the
// optimiser is written out: plain descent with momentum, five lines.

#include <cmath>
#include <cstdio>
#include <vector>

#include "ppma/nn/layers.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"

using namespace ppma;

namespace {

struct Mlp {
  Linear fc1, fc2, fc3;
  explicit Mlp(Rng& rng) : fc1(2, 32, rng), fc2(32, 32, rng), fc3(32, 2, rng) {
    // The layers start as the vision network's do, very small; a network this thin wants larger
    // weights.
    for (Linear* layer : {&fc1, &fc2, &fc3})
      layer->weight = parameter(Tensor::randn(
          layer->weight.shape(), rng, 1 / std::sqrt(static_cast<double>(layer->weight.dim(1)))));
  }
  Tensor forward(const Tensor& x) const {  // (N,2) -> (N,2)
    return fc3.forward(gelu(fc2.forward(gelu(fc1.forward(x)))));
  }
  template <class V>
  void fields(V& v) {
    v.child("fc1", fc1), v.child("fc2", fc2), v.child("fc3", fc3);
  }
};

}  // namespace

int main() {
  Rng rng(4);
  const i64 n = 200;  // points, half of them on each spiral
  std::vector<float> points;
  std::vector<i64> labels;
  for (i64 i = 0; i < n; ++i) {
    const double t = static_cast<double>(i / 2) / static_cast<double>(n / 2),
                 turn = 3.5 * t + (i % 2 == 0 ? 0 : 3.14159265);
    points.push_back(static_cast<float>((0.1 + t) * std::cos(turn) + 0.02 * rng.normal()));
    points.push_back(static_cast<float>((0.1 + t) * std::sin(turn) + 0.02 * rng.normal()));
    labels.push_back(i % 2);
  }
  const Tensor x = Tensor::from(points, {n, 2});  // (N,2)
  const Tensor y = Tensor::from(labels, {n});     // (N)

  Mlp network(rng);
  std::vector<Field> weights = named_parameters(network);
  std::vector<Tensor> velocity;
  for (const Field& w : weights) velocity.push_back(Tensor::zeros(w.tensor.shape()));
  std::printf("%lld weights\n", static_cast<long long>(parameter_count(network)));

  double accuracy = 0;
  for (int step = 0; step <= 300; ++step) {
    const Tensor logits = network.forward(x);      // (N,2)
    const Tensor loss = cross_entropy(logits, y);  // ()
    const Tensor guess = argmax(logits, 1);        // (N)
    accuracy = 0;
    for (i64 i = 0; i < n; ++i)
      accuracy += guess.data<i64>()[i] == labels[static_cast<std::size_t>(i)]
                      ? 100.0 / static_cast<double>(n)
                      : 0;
    if (step % 300 == 0) std::printf("step %3d   loss %.1f\n", step, loss.item());

    zero_grad(network);
    loss.backward();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      float *w = weights[i].tensor.data<float>(), *v = velocity[i].data<float>();
      const Tensor gradient = weights[i].tensor.grad();
      for (i64 k = 0; k < gradient.numel(); ++k)
        w[k] += v[k] = 0.9f * v[k] - 0.1f * gradient.data<float>()[k];
    }
  }
  std::printf("%s: the spirals are told apart\n", accuracy > 99 ? "ok" : "FAILED");
  return accuracy > 99 ? 0 : 1;
}

// Exercises (solutions/01_04.cpp):
//   1. Take the two gelus away. How many points can the network still tell apart?
//   2. Take the momentum away. What happens to the loss after 300 steps?
