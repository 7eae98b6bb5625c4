#pragma once
#include "ppma/core/names_begin.hpp"
// Stochastic gradient descent with momentum and L2 decay, as PyTorch computes it:
//
//   d = g + decay w
//   b <- momentum b + d      (b = d in the first step)
//   w <- w - rate b          nesterov: w - rate (d + momentum b)

#include <vector>

#include "ppma/optim/parameters.hpp"
#include "ppma/optim/settings.hpp"

namespace ppma::inline PPMA_ABI {

struct SgdOptions {
  double momentum = 0;
  bool nesterov = false;
};

class Sgd {
 public:
  /// Momenta begin at 0.
  PPMA_API explicit Sgd(std::vector<Parameter> parameters, const SgdOptions& options = {});

  /// One step with gradients multiplied by gradient_factor; a parameter without a gradient stays as
  /// it is.
  PPMA_API void step(double rate, double gradient_factor = 1);
  /// The two halves of step(), as AdamW's.
  void set_rate(double rate, double gradient_factor = 1) { settings_.set(rate, gradient_factor); }
  /// As AdamW::update().
  PPMA_API void update(const Tensor& norm = Tensor(), double limit = 0);
  /// Forgets the gradients.
  void zero_grad() { detail::clear_gradients(parameters_); }

  /// What it updates.
  const std::vector<Parameter>& parameters() const { return parameters_; }

  /// momentum.NAME of every parameter; shares memory with the optimiser.
  PPMA_API TensorMap state() const;
  /// Restores what state() gave. Error: a tensor is missing or has another shape.
  PPMA_API void load_state(const TensorMap& saved);

 private:
  PPMA_API void update_on_gpu([[maybe_unused]] const std::vector<Tensor>& gradient,
                              [[maybe_unused]] const Tensor& norm, [[maybe_unused]] double limit);
  template <class T>
  void step_piece(std::size_t i, const Tensor& gradient, i64 begin, i64 end, double rate,
                  double gradient_factor);

  std::vector<Parameter> parameters_;
  SgdOptions options_;
  std::vector<i64> sizes_;
  std::vector<Tensor> momentum_;
  detail::StepSettings settings_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include "ppma/core/float_bits.hpp"
#include "ppma/kernels/cpu/pieces.hpp"
#include "ppma/kernels/cpu/sgd.hpp"
#include "ppma/ops/arithmetic.hpp"

namespace ppma::inline PPMA_ABI {

Sgd::Sgd(std::vector<Parameter> parameters, const SgdOptions& options)
    : parameters_(std::move(parameters)),
      options_(options),
      sizes_(detail::sizes_of(parameters_)),
      momentum_(detail::zeros_like(parameters_)),
      settings_(detail::device_of(parameters_)) {}

void Sgd::step(double rate, double gradient_factor) {
  set_rate(rate, gradient_factor);
  update();
}

void Sgd::update(const Tensor& norm, double limit) {
  check(limit >= 0, "Sgd: the limit of a norm is ", limit, "; use a positive one, or 0");
  const std::vector<Tensor> gradient = detail::gradients_of(parameters_);
  if (detail::device_of(parameters_) == Device::cuda) return update_on_gpu(gradient, norm, limit);
  if (norm.defined() && !is_finite(norm.item())) return;
  const double rate = settings_.rate, gradient_factor = settings_.factor(norm, limit);
  kernels::for_pieces(sizes_, [&](std::size_t i, i64 begin, i64 end) {
    if (!gradient[i].defined()) return;
    if (parameters_[i].tensor.dtype() == DType::f32)
      step_piece<float>(i, gradient[i], begin, end, rate, gradient_factor);
    else
      step_piece<double>(i, gradient[i], begin, end, rate, gradient_factor);
  });
}

TensorMap Sgd::state() const {
  TensorMap saved;
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    saved.emplace_back("momentum." + parameters_[i].name, momentum_[i]);
  return saved;
}

void Sgd::load_state(const TensorMap& saved) {
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    detail::restore(saved, "momentum", parameters_[i].name, momentum_[i]);
}

void Sgd::update_on_gpu([[maybe_unused]] const std::vector<Tensor>& gradient,
                        [[maybe_unused]] const Tensor& norm, [[maybe_unused]] double limit) {
#if PPMA_CUDA
  const double* const there = norm.defined() ? norm.data<double>() : nullptr;
  kernels::for_dtypes([&](auto zero) {
    using T = decltype(zero);
    kernels::for_tables<T, 3>(
        detail::table_entries(parameters_), sizes_,
        [&](std::size_t i, auto& table, int slot) {
          return detail::put_arrays<T>(table, slot, gradient[i], parameters_[i].tensor, gradient[i],
                                       momentum_[i]);
        },
        [&](const auto& table, unsigned blocks) {
          kernels::detail::sgd_pieces<<<blocks, 256, 0, cuda::stream()>>>(
              table, settings_.on_gpu(), there, limit, options_.momentum, options_.nesterov);
          cuda::launched("Sgd");
        });
  });
#endif
}

template <class T>
void Sgd::step_piece(std::size_t i, const Tensor& gradient, i64 begin, i64 end, double rate,
                     double gradient_factor) {
  Parameter& p = parameters_[i];
  const kernels::SgdStep<T> s{static_cast<T>(rate * p.rate_factor), static_cast<T>(p.weight_decay),
                              static_cast<T>(options_.momentum), static_cast<T>(gradient_factor),
                              options_.nesterov};
  kernels::sgd(Cpu{}, end - begin, s, gradient.data<T>() + begin,
               p.tensor.template data<T>() + begin, momentum_[i].template data<T>() + begin);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
