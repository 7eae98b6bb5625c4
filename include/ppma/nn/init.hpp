#pragma once
#include "ppma/core/names_begin.hpp"
// Initial values of parameters, as the published network has them (algorithm 3.8).

#include "ppma/core/random.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// A trainable tensor.
PPMA_API Tensor parameter(Tensor values);

namespace detail {

PPMA_API bool& drawing_initial_values();

}  // namespace detail

/// While one is alive, layers made by this thread have zeros instead of random weights: for
/// networks whose weights are loaded next, since millions of draws take seconds.
class SkipInit {
 public:
  SkipInit() : before_(detail::drawing_initial_values()) {
    detail::drawing_initial_values() = false;
  }
  ~SkipInit() { detail::drawing_initial_values() = before_; }
  SkipInit(const SkipInit&) = delete;
  SkipInit& operator=(const SkipInit&) = delete;

 private:
  bool before_;
};

/// Normal draws with the given deviation, drawn again until they lie within +-limit. Advances rng
/// by one block of random bits for two elements, whatever is drawn; large tensors are filled in
/// parallel.
PPMA_API Tensor truncated_normal(const Shape& shape, Rng& rng, double deviation = 0.02,
                                 double limit = 2);

/// PyTorch's default of a convolution, for weight and bias: uniform in +-1/sqrt(fan_in).
PPMA_API Tensor uniform_fan_in(const Shape& shape, i64 fan_in, Rng& rng);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NN)

#include <algorithm>
#include <cmath>

#include "ppma/core/parallel.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor parameter(Tensor values) {
  return PPMA_GRADIENTS != 0 ? values.requires_grad(true) : values;
}

namespace detail {

bool& drawing_initial_values() {
  thread_local bool on = true;
  return on;
}

}  // namespace detail

Tensor truncated_normal(const Shape& shape, Rng& rng, double deviation, double limit) {
  check(deviation > 0 && limit >= deviation, "truncated_normal: the limit ", limit,
        " must be at least the deviation ", deviation);
  if (!detail::drawing_initial_values()) return Tensor::zeros(shape);
  Tensor t = Tensor::empty(shape);
  float* const p = t.data<float>();
  const i64 n = t.numel();
  const u64 first = (rng.position() + 3) / 4;  // whole blocks, from the next unused one
  rng.seek((first + static_cast<u64>(n + 1) / 2) * 4);
  parallel_for((n + 1) / 2, 1024, [=](i64 begin, i64 end) {
    for (i64 pair = begin; pair < end; ++pair) {
      const PhiloxBlock draw = rng.at(first + static_cast<u64>(pair));
      // Box-Muller: two uniforms of 53 bits make two normals.
      const auto uniform = [&draw](int i) {
        return static_cast<double>(u64{draw.word[i] >> 5} * 67108864 + (draw.word[i + 1] >> 6)) *
               0x1p-53;
      };
      const double radius = std::sqrt(-2 * std::log(1 - uniform(0))),
                   turn = 6.283185307179586 * uniform(2);
      double x[2] = {deviation * radius * std::cos(turn), deviation * radius * std::sin(turn)};
      for (i64 i = 2 * pair; i < std::min(n, 2 * pair + 2); ++i) {
        double& value = x[i - 2 * pair];
        if (std::abs(value) > limit) {
          Rng again = rng.fork(first * 4 + static_cast<u64>(i));
          while (std::abs(value) > limit) value = deviation * again.normal();
        }
        p[i] = static_cast<float>(value);
      }
    }
  });
  return t;
}

Tensor uniform_fan_in(const Shape& shape, i64 fan_in, Rng& rng) {
  if (!detail::drawing_initial_values()) return Tensor::zeros(shape);
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  return Tensor::rand(shape, rng, -bound, bound);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
