#pragma once
#include "ppma/core/names_begin.hpp"
// Optimizer: AdamW or SGD, whichever its options say, for who trains with either.

#include <variant>
#include <vector>

#include "ppma/optim/adamw.hpp"
#include "ppma/optim/sgd.hpp"

namespace ppma::inline PPMA_ABI {

/// Options of one or the other.
using OptimizerOptions = std::variant<AdamWOptions, SgdOptions>;

/// What AdamW and Sgd have in common; each says what it does.
class Optimizer {
 public:
  /// The optimiser that the options are of.
  PPMA_API Optimizer(std::vector<Parameter> parameters, const OptimizerOptions& options);

  /// One step, as AdamW::step().
  PPMA_API void step(double rate, double gradient_factor = 1);
  /// What the next updates use, as AdamW::set_rate().
  PPMA_API void set_rate(double rate, double gradient_factor = 1);
  /// An update with it, as AdamW::update().
  PPMA_API void update(const Tensor& norm = Tensor(), double limit = 0);
  /// Forgets the gradients.
  PPMA_API void zero_grad();
  /// What it updates.
  PPMA_API const std::vector<Parameter>& parameters() const;
  /// All that is kept between steps, by name; shares memory.
  PPMA_API TensorMap state() const;
  /// Restores what state() gave. Error: a tensor is missing or has another shape.
  PPMA_API void load_state(const TensorMap& saved);

 private:
  std::variant<AdamW, Sgd> is_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

namespace ppma::inline PPMA_ABI {

namespace detail {

inline std::variant<AdamW, Sgd> made_optimizer(std::vector<Parameter> parameters,
                                               const OptimizerOptions& options) {
  if (const auto* sgd = std::get_if<SgdOptions>(&options)) return Sgd(std::move(parameters), *sgd);
  return AdamW(std::move(parameters), std::get<AdamWOptions>(options));
}

}  // namespace detail

Optimizer::Optimizer(std::vector<Parameter> parameters, const OptimizerOptions& options)
    : is_(detail::made_optimizer(std::move(parameters), options)) {}

void Optimizer::step(double rate, double gradient_factor) {
  std::visit([&](auto& o) { o.step(rate, gradient_factor); }, is_);
}

void Optimizer::set_rate(double rate, double gradient_factor) {
  std::visit([&](auto& o) { o.set_rate(rate, gradient_factor); }, is_);
}

void Optimizer::update(const Tensor& norm, double limit) {
  std::visit([&](auto& o) { o.update(norm, limit); }, is_);
}

void Optimizer::zero_grad() {
  std::visit([](auto& o) { o.zero_grad(); }, is_);
}

const std::vector<Parameter>& Optimizer::parameters() const {
  return std::visit([](const auto& o) -> const std::vector<Parameter>& { return o.parameters(); },
                    is_);
}

TensorMap Optimizer::state() const {
  return std::visit([](const auto& o) { return o.state(); }, is_);
}

void Optimizer::load_state(const TensorMap& saved) {
  std::visit([&](auto& o) { o.load_state(saved); }, is_);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
