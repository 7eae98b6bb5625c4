#pragma once
#include "ppma/core/names_begin.hpp"
// The gradients of an attention's queries, keys and values on a GPU, found together: their three
// products read the same tokens and add to the same gradient of these.

#if PPMA_CUDA

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "ppma/kernels/cuda/packed_products_back.cuh"
#include "ppma/nn/layers.hpp"
#include "ppma/ops/rotary.hpp"
#include "ppma/ops/weights.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI::detail {

// Whether the gradients of q, k and v, products of tokens x (B,H,W,C) in heads of d, are found
// together: all are wanted.
inline bool differentiates_together(const Tensor& x, const std::array<const Linear*, 3>& layers,
                                    i64 d) {
  if (!needs_grad({x}) || x.device() != Device::cuda || x.dtype() != DType::bf16 || x.rank() != 4)
    return false;
  const i64 c = x.dim(3);
  for (const Linear* l : layers)
    if (!l->weight.requires_grad() || !l->bias.requires_grad() ||
        l->weight.shape() != Shape{c, c} || l->weight.dtype() != DType::f32)
      return false;
  return kernels::has_packed_products_back(x.numel() / c, c, d);
}

// Puts q, k and v, computed of tokens x, on the tape so that their gradients are found together:
// each leaves its own for an operation older than the three, whose turn comes when all have. What
// that one gives and is given by them has no elements.
inline void record_turned_products(const Tensor& x, const std::array<const Linear*, 3>& layers,
                                   const std::array<Tensor*, 3>& results,
                                   const RotaryTables& tables, i64 d, double k_scale) {
  const auto left = std::make_shared<std::array<Tensor, 3>>();  // dq, dk, dv (B,H,W,C)
  std::vector<Tensor> inputs{x};
  std::array<Tensor, 3> weights;
  for (std::size_t i = 0; i < 3; ++i) {
    inputs.push_back(layers[i]->weight), inputs.push_back(layers[i]->bias);
    weights[i] = converted_weights(layers[i]->weight, DType::bf16);
  }
  const auto back = [left, weights, x = Saved(x), tables, d, k_scale](const Tensor&) {
    const Tensor tokens = x.get();  // (B,H,W,C)
    Tensor dx = gradient_so_far(0);
    kernels::TurnedProductsBack p{};
    p.tokens = tokens.dim(1) * tokens.dim(2), p.rows = tokens.dim(0) * p.tokens;
    p.c = static_cast<int>(tokens.dim(3)), p.d = static_cast<int>(d);
    p.x = tokens.data<bf16>(), p.scale = static_cast<float>(k_scale);
    p.cosine = tables.cosine.data<float>(), p.sine = tables.sine.data<float>();
    p.add = dx.defined();
    if (!dx.defined()) dx = Tensor::empty(tokens.shape(), DType::bf16, Device::cuda);
    p.dx = dx.data<bf16>();
    Grads grads{dx};
    for (std::size_t i = 0; i < 3; ++i) {
      Tensor &dy = (*left)[i], dw, db;
      if (dy.defined()) {
        dw = Tensor::empty(weights[i].shape(), DType::f32, Device::cuda);
        db = Tensor::empty({weights[i].dim(0)}, DType::f32, Device::cuda);
        p.dw[i] = dw.data<float>(), p.db[i] = db.data<float>();
      } else {  // nothing came of that result
        dy = Tensor::zeros(tokens.shape(), DType::bf16, Device::cuda);
      }
      p.dy[i] = std::as_const(dy).data<bf16>(), p.w[i] = weights[i].data<bf16>();
      grads.push_back(dw), grads.push_back(db);
    }
    if (kernels::has_turned_products_back(p.rows, p.c, p.d))
      kernels::turned_products_back(Cuda{}, p);
    else
      kernels::packed_products_back(Cuda{}, p);
    return grads;
  };
  const Tensor all =
      record(Tensor::empty({0}, DType::bf16, Device::cuda), "attention's products", inputs, back);
  for (std::size_t i = 0; i < 3; ++i)
    *results[i] = record(*results[i], "attention's products", {all}, [left, i](const Tensor& dy) {
      const auto& [q, k, v] = *left;
      const bool first = !q.defined() && !k.defined() && !v.defined();
      (*left)[i] = dy;
      return Grads{first ? Tensor::empty({0}, dy.dtype(), dy.device()) : Tensor()};
    });
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif

#include "ppma/core/names_end.hpp"
