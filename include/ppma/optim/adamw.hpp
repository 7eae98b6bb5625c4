#pragma once
#include "ppma/core/names_begin.hpp"
// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019), as PyTorch computes
// it. In step t:
//
//   w <- w (1 - r d)                          r learning rate, d weight decay
//   m <- b1 m + (1 - b1) g                    running mean of the gradient
//   v <- b2 v + (1 - b2) g^2                  running mean of its square
//   w <- w - r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//
// One pass over the memory of w, g, m, v: the four lines are fused.

#include <vector>

#include "ppma/optim/parameters.hpp"
#include "ppma/optim/settings.hpp"

namespace ppma::inline PPMA_ABI {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

/// Holds the running means; the learning rate comes with each step.
///
///   AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
///   loss.backward();
///   optimizer.step(1e-3);
///   optimizer.zero_grad();
///
/// A step that is captured as a graph calls update() inside of it and set_rate() before each
/// replay.
class AdamW {
 public:
  /// Means begin at 0.
  PPMA_API explicit AdamW(std::vector<Parameter> parameters, const AdamWOptions& options = {});

  /// One step with gradients multiplied by gradient_factor (of clipping, or 1 / accumulated
  /// batches). A parameter without a gradient stays as it is, and its step is not counted.
  PPMA_API void step(double rate, double gradient_factor = 1);
  /// The two halves of step(): what the next updates use, and an update with it. With `norm`, as
  /// gradient_norm_on_device gives it, gradients are also scaled down until gradient_factor * norm
  /// is at most `limit` (0: they are not); where the norm is not finite nothing changes. Nothing is
  /// read back.
  void set_rate(double rate, double gradient_factor = 1) { settings_.set(rate, gradient_factor); }
  /// See set_rate().
  PPMA_API void update(const Tensor& norm = Tensor(), double limit = 0);
  /// Forgets the gradients; their memory returns to the pool.
  void zero_grad() { detail::clear_gradients(parameters_); }

  /// What it updates.
  const std::vector<Parameter>& parameters() const { return parameters_; }

  /// mean.NAME, square.NAME and step.NAME (int64) of every parameter; shares memory with the
  /// optimiser.
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
  AdamWOptions options_;
  std::vector<i64> sizes_;
  std::vector<Tensor> mean_, square_;
  Tensor steps_;  // int64, one a parameter, beside the parameters
  detail::StepSettings settings_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include <cmath>
#include <string>

#include "ppma/core/float_bits.hpp"
#include "ppma/kernels/cpu/adamw.hpp"
#include "ppma/kernels/cpu/pieces.hpp"
#include "ppma/ops/arithmetic.hpp"

namespace ppma::inline PPMA_ABI {

AdamW::AdamW(std::vector<Parameter> parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)),
      options_(options),
      sizes_(detail::sizes_of(parameters_)),
      mean_(detail::zeros_like(parameters_)),
      square_(detail::zeros_like(parameters_)),
      steps_(Tensor::zeros({static_cast<i64>(parameters_.size())}, DType::int64,
                           detail::device_of(parameters_))),
      settings_(steps_.device()) {
  check(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1,
        "AdamW: beta1 and beta2 must be in [0, 1), got ", options.beta1, " and ", options.beta2);
}

void AdamW::step(double rate, double gradient_factor) {
  set_rate(rate, gradient_factor);
  update();
}

void AdamW::update(const Tensor& norm, double limit) {
  check(limit >= 0, "AdamW: the limit of a norm is ", limit, "; use a positive one, or 0");
  const std::vector<Tensor> gradient = detail::gradients_of(parameters_);
  if (steps_.device() == Device::cuda) return update_on_gpu(gradient, norm, limit);
  if (norm.defined() && !is_finite(norm.item())) return;
  for (std::size_t i = 0; i < gradient.size(); ++i)
    if (gradient[i].defined()) ++steps_.data<i64>()[i];
  const double rate = settings_.rate, factor = settings_.factor(norm, limit);
  kernels::for_pieces(sizes_, [&](std::size_t i, i64 begin, i64 end) {
    if (!gradient[i].defined()) return;
    const Parameter& p = parameters_[i];
    if (p.tensor.dtype() == DType::f32)
      step_piece<float>(i, gradient[i], begin, end, rate * p.rate_factor, factor);
    else
      step_piece<double>(i, gradient[i], begin, end, rate * p.rate_factor, factor);
  });
}

TensorMap AdamW::state() const {
  TensorMap saved;
  const std::vector<i64> steps = steps_.to_vector<i64>();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    saved.emplace_back("mean." + parameters_[i].name, mean_[i]);
    saved.emplace_back("square." + parameters_[i].name, square_[i]);
    saved.emplace_back("step." + parameters_[i].name,
                       Tensor::scalar(static_cast<double>(steps[i]), DType::int64));
  }
  return saved;
}

void AdamW::load_state(const TensorMap& saved) {
  std::vector<i64> steps;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const std::string& name = parameters_[i].name;
    detail::restore(saved, "mean", name, mean_[i]);
    detail::restore(saved, "square", name, square_[i]);
    Tensor count = Tensor::scalar(0, DType::int64);
    detail::restore(saved, "step", name, count);
    steps.push_back(static_cast<i64>(count.item()));
  }
  steps_.copy_from(Tensor::from(steps, steps_.shape()));
}

void AdamW::update_on_gpu([[maybe_unused]] const std::vector<Tensor>& gradient,
                          [[maybe_unused]] const Tensor& norm, [[maybe_unused]] double limit) {
#if PPMA_CUDA
  const double* const there = norm.defined() ? norm.data<double>() : nullptr;
  kernels::for_dtypes([&](auto zero) {
    using T = decltype(zero);
    kernels::for_tables<T, 4>(
        detail::table_entries(parameters_), sizes_,
        [&](std::size_t i, auto& table, int slot) {
          return detail::put_arrays<T>(table, slot, gradient[i], parameters_[i].tensor, gradient[i],
                                       mean_[i], square_[i]);
        },
        [&](const auto& table, unsigned blocks) {
          const Workspace<T> factors(4 * kernels::table_room, Device::cuda);
          kernels::detail::adamw_factors<<<1, kernels::table_room, 0, cuda::stream()>>>(
              table, settings_.on_gpu(), steps_.data<i64>(), there, limit, options_.beta1,
              options_.beta2, factors.data());
          kernels::detail::adamw_pieces<<<blocks, 512, 0, cuda::stream()>>>(
              table, static_cast<const T*>(factors.data()), there, options_.beta1, options_.beta2,
              options_.eps);
          cuda::launched("AdamW");
        });
  });
#endif
}

template <class T>
void AdamW::step_piece(std::size_t i, const Tensor& gradient, i64 begin, i64 end, double rate,
                       double gradient_factor) {
  const double t = static_cast<double>(std::as_const(steps_).template data<i64>()[i]);
  const kernels::AdamWStep<T> s{static_cast<T>(1 - rate * parameters_[i].weight_decay),
                                static_cast<T>(options_.beta1),
                                static_cast<T>(options_.beta2),
                                static_cast<T>(rate / (1 - std::pow(options_.beta1, t))),
                                static_cast<T>(1 / std::sqrt(1 - std::pow(options_.beta2, t))),
                                static_cast<T>(options_.eps),
                                static_cast<T>(gradient_factor)};
  kernels::adamw(Cpu{}, end - begin, s, gradient.data<T>() + begin,
                 parameters_[i].tensor.template data<T>() + begin,
                 mean_[i].template data<T>() + begin, square_[i].template data<T>() + begin);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
