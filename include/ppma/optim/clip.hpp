#pragma once
#include "ppma/core/names_begin.hpp"
// The norm of all gradients together, and the factor that brings it down to a limit.

#include <vector>

#include "ppma/optim/parameters.hpp"

namespace ppma::inline PPMA_ABI {

/// gradient_norm as an f64 scalar beside the parameters: on the GPU nothing waits for it.
PPMA_API Tensor gradient_norm_on_device(const std::vector<Parameter>& parameters);

/// Euclidean norm of the gradients of all parameters, as one long vector; parameters without a
/// gradient count 0.
PPMA_API double gradient_norm(const std::vector<Parameter>& parameters);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include <cmath>

#include "ppma/kernels/cpu/pieces.hpp"
#include "ppma/kernels/cpu/simd.hpp"
#include "ppma/kernels/cpu/sum_of_squares.hpp"
#include "ppma/optim/settings.hpp"

namespace ppma::inline PPMA_ABI {

Tensor gradient_norm_on_device(const std::vector<Parameter>& parameters) {
#if PPMA_CUDA
  if (detail::device_of(parameters) == Device::cuda) {
    const std::vector<Tensor> gradient = detail::gradients_of(parameters);
    const std::vector<i64> sizes = detail::sizes_of(parameters);
    i64 pieces = 0, done = 0;
    for (const i64 n : sizes) pieces += (n + kernels::table_piece - 1) / kernels::table_piece;
    const Workspace<double> partial(pieces, Device::cuda);
    Tensor norm = Tensor::empty({}, DType::f64, Device::cuda);
    kernels::for_dtypes([&](auto zero) {
      using T = decltype(zero);
      kernels::for_tables<T, 1>(
          detail::table_entries(parameters), sizes,
          [&](std::size_t i, auto& table, int slot) {
            return detail::put_arrays<T>(table, slot, gradient[i], gradient[i]);
          },
          [&](const auto& table, unsigned blocks) {
            kernels::detail::square_pieces<<<blocks, 256, 0, cuda::stream()>>>(
                table, partial.data() + done);
            done += blocks;
          });
    });
    kernels::detail::root_of_sum<<<1, 256, 0, cuda::stream()>>>(
        done, static_cast<const double*>(partial.data()), norm.data<double>());
    cuda::launched("gradient_norm");
    return norm;
  }
#endif
  return Tensor::scalar(gradient_norm(parameters), DType::f64);
}

double gradient_norm(const std::vector<Parameter>& parameters) {
  const std::vector<Tensor> gradient = detail::gradients_of(parameters);
  if (detail::device_of(parameters) == Device::cuda)
    return gradient_norm_on_device(parameters).item();
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
        g.dtype() == DType::f32
            ? kernels::sum_of_squares(Cpu{}, end - begin, g.data<float>() + begin)
            : kernels::sum_of_squares(Cpu{}, end - begin, g.data<double>() + begin);
  });
  double total = 0;
  for (const double p : partial) total += p;
  return std::sqrt(total);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
