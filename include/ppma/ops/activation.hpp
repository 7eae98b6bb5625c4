#pragma once
#include "ppma/core/names_begin.hpp"
// Activations, elementwise, any shape. f32 runs on polynomials of known error (kernels/cpu/simd.hpp), f64 is as accurate as
// libm.

#include "ppma/kernels/activation.hpp"
#include "ppma/ops/elementwise.hpp"

namespace ppma::inline PPMA_ABI {

/// max(x, 0); keeps its output only.
inline Tensor relu(const Tensor& x) { return elementwise("relu", x, functions::Relu{}); }
/// x * Phi(x), the exact form with erf (not the tanh approximation).
inline Tensor gelu(const Tensor& x) { return elementwise("gelu", x, functions::Gelu{}); }
/// x * sigmoid(x), also called swish.
inline Tensor silu(const Tensor& x) { return elementwise("silu", x, functions::Silu{}); }
inline Tensor sigmoid(const Tensor& x) { return elementwise("sigmoid", x, functions::Sigmoid{}); }
inline Tensor tanh(const Tensor& x) { return elementwise("tanh", x, functions::Tanh{}); }
/// ln(1 + e^x); x itself above 20, as PyTorch has it.
inline Tensor softplus(const Tensor& x) { return elementwise("softplus", x, functions::Softplus{}); }

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
