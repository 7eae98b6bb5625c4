#pragma once
#include "ppma/core/names_begin.hpp"
// Activations, elementwise, any shape. f32 runs on polynomials of known error
// (kernels/cpu/functions.hpp), f64 is as accurate as libm.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// max(x, 0); keeps its output only.
PPMA_API Tensor relu(const Tensor& x);

/// x * Phi(x), the exact form with erf (not the tanh approximation).
PPMA_API Tensor gelu(const Tensor& x);

/// x * sigmoid(x), also called swish.
PPMA_API Tensor silu(const Tensor& x);

/// 1 / (1 + e^-x)
PPMA_API Tensor sigmoid(const Tensor& x);
/// Hyperbolic tangent.
PPMA_API Tensor tanh(const Tensor& x);

/// ln(1 + e^x); x itself above 20, as PyTorch has it.
PPMA_API Tensor softplus(const Tensor& x);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ELEMENTS)

#include "ppma/kernels/activation.hpp"
#include "ppma/ops/elementwise.hpp"

namespace ppma::inline PPMA_ABI {

Tensor relu(const Tensor& x) { return elementwise("relu", x, functions::Relu{}); }
Tensor gelu(const Tensor& x) { return elementwise("gelu", x, functions::Gelu{}); }
Tensor silu(const Tensor& x) { return elementwise("silu", x, functions::Silu{}); }
Tensor sigmoid(const Tensor& x) { return elementwise("sigmoid", x, functions::Sigmoid{}); }
Tensor tanh(const Tensor& x) { return elementwise("tanh", x, functions::Tanh{}); }
Tensor softplus(const Tensor& x) { return elementwise("softplus", x, functions::Softplus{}); }

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
