// 19: a state space is a masked attention. Mamba carries a state from token to token; written for
// all pairs of tokens it is the linear attention of queries and keys under the decay mask of lesson
// 06, of which a token sees the half before it.
//
//   state    h_t = a_t h_{t-1} + B_t (dt_t u_t),   y_t = C_t . h_t,   a_t = e^(dt_t A)
//   pairs    y = ( C B^T * L ) v,   v_t = dt_t u_t,   L_ts = a_{s+1} .. a_t for s <= t, else 0
//
// So C are queries, B keys, dt u values, and dt says both how much a token writes and how much is
// forgotten before it. Dao and Gu (2024) call this duality; it needs one decay for all states of a
// token. And between the two there is a third way, which is how such networks are computed.
// Here: N tokens, S states, one channel.

#include "check.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/ops/selective_scan.hpp"
#include "ppma/polyline/line_mask.hpp"

using namespace ppma;

int main() {
  const i64 n = 24, states = 4;
  Rng rng(19);
  const auto normal = [&](const Shape& s) { return Tensor::randn(s, rng, 1, DType::f64); };
  const Tensor u = normal({n, 1}), dt = softplus(normal({n, 1})),  // (N,1)
      b = normal({n, states}), c = normal({n, states});            // (N,S)
  const double A = -0.5;
  const Tensor log_a = scale(dt, A), v = dt * u;  // (N,1)

  // The state, token by token.
  Tensor by_state = Tensor::zeros({n, 1}, DType::f64);
  std::vector<double> h(states, 0);
  for (i64 t = 0; t < n; ++t)
    for (i64 s = 0; s < states; ++s) {
      double& state = h[static_cast<std::size_t>(s)];
      state = std::exp(log_a.data<double>()[t]) * state +
              b.data<double>()[t * states + s] * v.data<double>()[t];
      by_state.data<double>()[t] += c.data<double>()[t * states + s] * state;
    }
  const auto grid = [](const Tensor& t) { return reshape(t, {1, 1, n, t.dim(1)}); };  // one row
  const auto scan = [&](const Tensor& a) {
    return reshape(selective_scan(grid(u), grid(dt), a, grid(b), grid(c)), {n, i64{1}});
  };
  expect(largest_difference(by_state, scan(Tensor::full({1, states}, A, DType::f64))) < 1e-13,
         "these lines are selective_scan(): S numbers at a time, no N x N array");

  // All pairs.
  Tensor before = Tensor::zeros({n, n}, DType::f64);  // (N,N) 1 up to the diagonal
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j <= i; ++j) before.data<double>()[i * n + j] = 1;
  const Tensor mask = exp(sequence_log_mask(reshape(log_a, {n}))) * before;  // (N,N)
  const Tensor scores = matmul(c, b, false, true);                           // (N,N)
  expect(largest_difference(matmul(scores * mask, v), by_state) < 1e-12,
         "the same is ( C B^T * L ) v, with the mask of lesson 06 below the diagonal");

  // What makes the short way possible: below the diagonal each 2 x 2 block of L has determinant 0.
  double worst = 0;
  const double* const L = mask.data<double>();
  for (i64 i = 1; i + 1 < n; ++i)
    for (i64 j = 0; j + 1 <= i; ++j)
      worst = std::fmax(worst, std::fabs(L[i * n + j] * L[(i + 1) * n + j + 1] -
                                         L[i * n + j + 1] * L[(i + 1) * n + j]));
  expect(worst < 1e-15, "L is 1-semiseparable: below its diagonal every block has rank 1");

  // In chunks: all pairs within one, and a state between them. First and last of these are the two
  // above.
  const auto in_chunks = [&](i64 size) {
    std::vector<Tensor> parts;
    Tensor carried = Tensor::zeros({states, 1}, DType::f64);  // (S,1) at the end of the last chunk
    for (i64 first = 0; first < n; first += size) {
      const auto of = [&](const Tensor& t) { return narrow(t, 0, first, size); };
      const Tensor near = narrow(of(mask), 1, first, size);                 // L within the chunk
      const Tensor from_before = exp(cumsum(of(log_a), 0));                 // (size,1)
      const Tensor to_end = transpose(narrow(near, 0, size - 1, 1), 0, 1);  // (size,1)
      parts.push_back(matmul(matmul(of(c), of(b), false, true) * near, of(v)) +
                      matmul(of(c), carried) * from_before);
      carried = matmul(of(b), to_end * of(v), true, false) +
                carried * narrow(from_before, 0, size - 1, 1);
    }
    return concat(parts, 0);
  };
  bool same = true;
  for (const i64 size : {i64{1}, i64{6}, n})
    same = same && largest_difference(in_chunks(size), by_state) < 1e-12;
  expect(same, "chunks of 1, 6 and 24 tokens give it too");

  std::printf("\nproducts of a head, 64 channels and states, millions\n");
  std::printf("  tokens      pairs      state  chunks of 64\n");
  for (const i64 tokens : {64, 256, 1024, 4096}) {
    const auto million = [](i64 count) { return static_cast<double>(count) / 1e6; };
    const i64 d = 64, q = 64;
    std::printf("  %6lld %10.2f %10.2f %13.2f\n", static_cast<long long>(tokens),
                million(2 * tokens * tokens * d), million(3 * tokens * d * d),
                million(tokens * (2 * q * d + 2 * d * d)));
  }
  std::printf("Chunks cost a little more than the state, and are products of matrices.\n\n");

  // A decay for each state: as many masks as states, and no product of matrices any more.
  const Tensor each = Tensor::from<double>({-0.1, -0.5, -1, -3}, {1, states});
  Tensor sum = Tensor::zeros({n, 1}, DType::f64);
  for (i64 s = 0; s < states; ++s) {
    const Tensor own = exp(sequence_log_mask(reshape(dt * select(each, 1, s), {n}))) * before;
    sum = sum + matmul(matmul(narrow(c, 1, s, 1), narrow(b, 1, s, 1), false, true) * own, v);
  }
  expect(largest_difference(sum, scan(each)) < 1e-12,
         "the first Mamba, a decay a state: the sum of S attentions, each with its own mask");
  return failures;
}

// Exercises (solutions/19_21.cpp):
//   1. Let dt of one token be very large. What is in the mask, and what does that token do?
//   2. On a grid selective_scan() goes along the rows, then down the columns. Which part of which
//      mask of lesson 12 is it?
