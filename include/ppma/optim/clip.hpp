#pragma once
// The norm of all gradients together, and the factor that brings it down to a limit.

#include <cmath>

#include "ppma/kernels/simd.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/parameters.hpp"

namespace ppma::inline PPMA_ABI {

namespace kernels {

/// Sum of squares of n elements, n at most update_piece (longer sums want more care with rounding).
template <class T>
double sum_of_squares(Cpu, i64 n, const T* x) {
  Vec<T> s0{}, s1{}, s2{}, s3{};
  constexpr i64 w = lanes<T>;
  i64 i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    const Vec<T> a = load(x + i), b = load(x + i + w), c = load(x + i + 2 * w), d = load(x + i + 3 * w);
    s0 += a * a, s1 += b * b, s2 += c * c, s3 += d * d;
  }
  for (; i < n; i += w) {
    const Vec<T> a = load_some(x + i, n - i < w ? n - i : w);
    s0 += a * a;
  }
  return static_cast<double>(lane_sum<T>((s0 + s1) + (s2 + s3)));
}

}  // namespace kernels

/// Euclidean norm of the gradients of all parameters, as one long vector; parameters without a gradient count 0.
inline double gradient_norm(const std::vector<Parameter>& parameters) {
  const std::vector<Tensor> gradient = detail::gradients_of(parameters);
#if PPMA_CUDA
  if (!parameters.empty() && parameters[0].tensor.device() == Device::cuda) {  // summed on the GPU, read back once
    Tensor total;
    for (const Tensor& g : gradient) {
      if (!g.defined()) continue;
      const Tensor squares = sum(square(g.detach()));
      total = total.defined() ? add(total, squares) : squares;
    }
    return total.defined() ? std::sqrt(total.item()) : 0.0;
  }
#endif
  std::vector<i64> sizes, first{0};  // of tensors with a gradient, and where its partial sums begin
  std::vector<const Tensor*> present;
  for (const Tensor& g : gradient) {
    if (!g.defined()) continue;
    present.push_back(&g);
    sizes.push_back(g.numel());
    first.push_back(first.back() + (g.numel() + kernels::update_piece - 1) / kernels::update_piece);
  }
  std::vector<double> partial(static_cast<std::size_t>(first.back()));
  kernels::for_pieces(sizes, [&](std::size_t i, i64 begin, i64 end) {
    const Tensor& g = *present[i];
    partial[static_cast<std::size_t>(first[i] + begin / kernels::update_piece)] =
        g.dtype() == DType::f32 ? kernels::sum_of_squares(Cpu{}, end - begin, g.data<float>() + begin)
                                : kernels::sum_of_squares(Cpu{}, end - begin, g.data<double>() + begin);
  });
  double total = 0;
  for (const double p : partial) total += p;
  return std::sqrt(total);
}

/// What to multiply gradients of this norm by, so that it becomes at most `limit` (PyTorch's clip_grad_norm_); 1 when
/// limit is 0, for no clipping. Pass it to the optimiser's step.
inline double clip_factor(double norm, double limit) {
  check(limit >= 0, "clip: the limit is ", limit, "; use a positive one, or 0 for none");
  return limit == 0 ? 1.0 : std::min(1.0, limit / (norm + 1e-6));
}

}  // namespace ppma::inline PPMA_ABI
