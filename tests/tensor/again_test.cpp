// Results that backward makes again instead of keeping them: the same gradients to the last bit,
// less memory, and no new trap in how tensors may be used.
#include "catch.hpp"
#include "ppma/nn/checkpoint.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/ops/reduce.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

constexpr i64 rows = 512, width = 64;
constexpr i64 bytes = rows * width * 4;  // of one map

struct Weights {
  Tensor x, scale, shift, a, b, c;
  std::vector<Tensor> all() const { return {x, scale, shift, a, b, c}; }
};
Weights weights() {
  Rng rng(3);
  Weights w{Tensor::randn({1, rows / 16, 16, width}, rng),
            Tensor::randn({width}, rng),
            Tensor::randn({width}, rng),
            Tensor::randn({width, width}, rng),
            Tensor::randn({width, width}, rng),
            Tensor::randn({width, width, 3, 3}, rng)};
  for (Tensor* t : {&w.x, &w.scale, &w.shift, &w.a, &w.b, &w.c}) t->requires_grad(true);
  return w;
}

enum class Norm { layer, batch, batch_gelu };

// y's elements under a new name, which operations behind must keep.
Tensor keeps(const Tensor& y) { return reshape(y, y.shape()); }

Tensor normed(const Weights& w, Norm norm) {
  if (norm == Norm::layer) return layer_norm(w.x, w.scale, w.shift);
  Tensor mean = Tensor::zeros({width}), var = Tensor::ones({width});
  return (norm == Norm::batch ? batch_norm : batch_norm_gelu)(w.x, w.scale, w.shift, mean, var,
                                                              true, 0.1, 1e-5, nullptr);
}

// A norm, four operations that read its result in backward, and their sum.
Tensor loss_of(const Weights& w, Norm norm, bool kept) {
  Tensor y = normed(w, norm);
  if (kept) y = keeps(y);
  const Tensor u = add(linear(y, w.a), linear(y, w.b));
  return sum(mul(add(u, conv2d(y, w.c, Tensor(), {1, 1, 1})), gelu(y)));
}

std::vector<std::vector<double>> gradients(const Weights& w) {
  std::vector<std::vector<double>> all;
  for (const Tensor& t : w.all()) all.push_back(t.grad().to_vector<double>());
  return all;
}

}  // namespace

TEST_CASE("again: gradients are those of kept results to the last bit") {
  for (const Norm norm : {Norm::layer, Norm::batch, Norm::batch_gelu}) {
    const Weights kept = weights(), again = weights();
    const Tensor one = loss_of(kept, norm, true), two = loss_of(again, norm, false);
    CHECK(one.item() == two.item());
    one.backward(), two.backward();
    CHECK(gradients(kept) == gradients(again));
  }
}

TEST_CASE("again: a result lives neither until backward nor after it") {
  for (const Norm norm : {Norm::layer, Norm::batch, Norm::batch_gelu}) {
    const Weights w = weights();
    i64 held[2], after[2];
    for (const bool kept : {false, true}) {
      const i64 before = memory_stats().live_bytes;
      Tensor product = linear(kept ? keeps(normed(w, norm)) : normed(w, norm), w.a);
      held[kept] = memory_stats().live_bytes - before;
      product = sum(product);
      product.backward();
      for (Tensor t : w.all()) t.zero_grad();
      after[kept] = memory_stats().live_bytes - before;  // `product` still owns its history
    }
    CHECK(held[true] - held[false] >= bytes);
    CHECK(held[false] < bytes + bytes / 4);  // the product itself
    CHECK(after[false] <= after[true]);
    CHECK(after[false] < bytes / 4);
  }
}

TEST_CASE("again: a result that is held on to is what it was") {
  const Weights w = weights();
  const Tensor y = normed(w, Norm::layer);
  const std::vector<float> before = y.to_vector<float>();
  sum(linear(y, w.a)).backward();
  CHECK(y.to_vector<float>() == before);
  // Changed by its owner, it does not change the gradient.
  const Weights v = weights();
  Tensor z = normed(v, Norm::layer);
  const Tensor loss = sum(linear(z, v.a));
  z.copy_from(Tensor::zeros(z.shape()));
  loss.backward();
  CHECK(v.a.grad().to_vector<float>() == w.a.grad().to_vector<float>());
}

TEST_CASE("again: two losses of one result, as with kept ones") {
  const Weights w = weights();
  const Tensor y = normed(w, Norm::layer);
  const Tensor one = sum(linear(y, w.a)), two = sum(linear(y, w.b));
  one.backward();
  CHECK(says([&] { two.backward(); }, "was already differentiated"));
  // A loss that the norm is no part of any more: only the product's weight has a gradient.
  Weights v = weights();
  for (Tensor* t : {&v.x, &v.scale, &v.shift}) t->requires_grad(false);
  const Tensor plain = normed(v, Norm::layer);
  sum(linear(plain, v.a)).backward();
  CHECK(v.a.grad().to_vector<float>() == w.a.grad().to_vector<float>());
}

TEST_CASE("again: not recorded, of norms of norms, and within a checkpoint") {
  const Weights w = weights();
  {
    const NoGrad off;
    CHECK(normed(w, Norm::layer).info() == nullptr);
  }
  // A norm of a result that is made again keeps its own.
  const auto twice = [](const Weights& v, bool kept) {
    Tensor y = layer_norm(normed(v, Norm::batch), v.scale, v.shift);
    if (kept) y = keeps(y);
    return sum(square(linear(y, v.a)));
  };
  const Weights kept = weights();
  twice(w, false).backward(), twice(kept, true).backward();
  CHECK(w.x.grad().to_vector<float>() == kept.x.grad().to_vector<float>());
  CHECK(w.a.grad().to_vector<float>() == kept.a.grad().to_vector<float>());

  const Weights plain = weights(), checked = weights();
  Context context{true, Rng(1)};
  const auto f = [](const Weights& v) {
    return [v](const Tensor& x, Context&) { return linear(layer_norm(x, v.scale, v.shift), v.a); };
  };
  sum(square(f(plain)(plain.x, context))).backward();
  sum(square(checkpoint(f(checked), checked.x, context))).backward();
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(plain.all()[i].grad().to_vector<float>() == checked.all()[i].grad().to_vector<float>());
}

TEST_CASE("again: a gradient that grows in place is nobody else's") {
  // x's gradient begins as the upstream gradient itself, which the caller holds; products then add
  // to it.
  Rng rng(5);
  Tensor w = Tensor::randn({8, 8}, rng);
  const Tensor start = Tensor::randn({4, 8}, rng), upstream = Tensor::randn({4, 8}, rng);
  Tensor leaf = start.clone();
  leaf.requires_grad(true);
  const std::vector<float> before = upstream.to_vector<float>();
  const Tensor x = scale(leaf, 1.0);
  add(x, linear(x, w)).backward(upstream);
  CHECK(upstream.to_vector<float>() == before);
  const Tensor expected = add(upstream, linear(upstream, transpose(w, 0, 1)));
  for (std::size_t i = 0; i < 32; ++i)
    CHECK(leaf.grad().to_vector<float>()[i] ==
          Approx(expected.to_vector<float>()[i]).epsilon(1e-5));
}
