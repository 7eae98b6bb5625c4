#pragma once
#include "ppma/core/names_begin.hpp"
// Rotary embedding by raster index (Su et al., "RoFormer", 2021, as PPMA and RMT use it): in each
// head the pair of channels (2m, 2m+1) of token (i, j) is turned by the angle t * angle[2m], t =
// i*W + j.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The angle vector (d) of the published networks: 10000^-e, e from 0 to 1 in d/2 even steps, each
/// value twice.
PPMA_API Tensor rotary_angle(i64 d, DType dtype = DType::f32);

/// y (B,H,W,C) = scale * (x turned), x (B,H,W,C) with `heads` heads of d = C / heads channels each,
/// angle (d), both of a pair equal. The angle t * angle is formed in x's dtype. Differentiable in
/// x.
/// Errors: ranks, heads that do not divide C, an odd d, an angle of another width or dtype.
PPMA_API Tensor rotary(const Tensor& x, const Tensor& angle, i64 heads, double scale = 1);

/// The queries and the keys of an attention, turned; keys also scaled. One launch on the GPU where
/// nothing is recorded.
struct Rotated {
  Tensor q, k;
};

/// q and k (B,H,W,C), as rotary() of each; k is scaled besides.
PPMA_API Rotated rotary(const Tensor& q, const Tensor& k, const Tensor& angle, i64 heads,
                        double k_scale);

namespace detail {
/// cos and signed sin, (tokens, d), of an angle vector.
struct RotaryTables {
  Tensor cosine, sine;
};
PPMA_API RotaryTables rotary_tables(const Tensor& angle, i64 tokens);
/// scale * (x turned), or turned back.
PPMA_API Tensor turned(const Tensor& x, const RotaryTables& tables, i64 heads, double scale,
                       bool back);
}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_LAYOUT)

#include <cmath>
#include <list>
#include <mutex>
#include <type_traits>
#include <vector>

#if PPMA_CUDA
#include "ppma/core/buffer.cuh"
#endif
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/rotary.hpp"
#include "ppma/kernels/cpu/simd.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// A network asks for the same few tables again and again (one a stage) and each costs more than the
// rotation itself: the latest eight are kept.
RotaryTables rotary_tables(const Tensor& angle, i64 tokens) {
  struct Entry {
    std::vector<double> angle;
    Tensor device_angle;
    DType dtype;
    i64 tokens;
    RotaryTables tables;
  };
  // On the GPU by where the angle lies: reading it back would wait. The entry keeps the angle, so
  // that no other gets its place.
  const bool host = angle.device() == Device::cpu;
  static std::mutex mutex;
  // never destroyed, like the pool under it
  static std::list<Entry>* const kept = new std::list<Entry>;
  const std::vector<double> key = host ? angle.to_vector<double>() : std::vector<double>();
  const std::lock_guard<std::mutex> lock(mutex);
  const auto held = [host](const RotaryTables& tables) {
#if PPMA_CUDA  // a graph that is being captured will read them at each launch
    if (!host) {
      CudaPool::get().hold(tables.cosine.raw());
      CudaPool::get().hold(tables.sine.raw());
    }
#else
    static_cast<void>(host);
#endif
    return tables;
  };
  for (auto e = kept->begin(); e != kept->end(); ++e)
    if (e->tokens == tokens && e->dtype == angle.dtype() && e->device_angle.defined() != host &&
        (host ? e->angle == key : e->device_angle.raw() == angle.raw())) {
      kept->splice(kept->begin(), *kept, e);
      return held(e->tables);
    }
  const auto table = [&] {
    return Tensor::empty({tokens, angle.dim(0)}, angle.dtype(), angle.device());
  };
  RotaryTables tables{table(), table()};
  visit(angle.device(), angle.dtype(), "rotary", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::rotary_tables(on, tokens, angle.dim(0), angle.data<T>(), tables.cosine.data<T>(),
                           tables.sine.data<T>());
  });
  kept->push_front({key, host ? Tensor() : angle.detach(), angle.dtype(), tokens, tables});
  if (kept->size() > 8) kept->pop_back();
  return held(tables);
}

Tensor turned(const Tensor& x, const RotaryTables& tables, i64 heads, double scale, bool back) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  visit(x.device(), x.dtype(), "rotary", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::rotary(on, x.dim(0), x.dim(1) * x.dim(2), heads, x.dim(3) / heads, x.data<T>(),
                    tables.cosine.data<acc_t<T>>(), tables.sine.data<acc_t<T>>(),
                    static_cast<acc_t<T>>(scale), back, y.data<T>());
  });
  return y;
}

}  // namespace detail

Tensor rotary_angle(i64 d, DType dtype) {
  check(d >= 2 && d % 2 == 0, "rotary_angle: the head width must be even and at least 2, got ", d);
  std::vector<double> angle(static_cast<std::size_t>(d));
  for (i64 i = 0; i < d; ++i) {
    const i64 pair = i / 2, last = d / 2 - 1;
    const double e = d == 2 ? 0.0 : static_cast<double>(pair) / static_cast<double>(last);
    angle[static_cast<std::size_t>(i)] = std::pow(10000.0, -e);
  }
  Tensor a = Tensor::empty({d}, dtype);
  a.copy_from(Tensor::from(angle, {d}));
  return a;
}

Tensor rotary(const Tensor& x, const Tensor& angle, i64 heads, double scale) {
  check(x.defined() && angle.defined(), "rotary: x or angle is undefined");
  check(x.rank() == 4, "rotary: x must be (B,H,W,C), got ", x.shape());
  check(heads >= 1 && x.dim(3) % heads == 0, "rotary: ", heads, " heads do not divide the ",
        x.dim(3), " channels of x");
  const i64 d = x.dim(3) / heads, tokens = x.dim(1) * x.dim(2);
  check(d % 2 == 0, "rotary: the head width ", d, " is odd; channels are turned in pairs");
  check(angle.shape() == Shape{d}, "rotary: angle must be (", d,
        "), one entry a channel of a head, got ", angle.shape());
  check(angle.dtype() == accumulator_dtype(x.dtype()), "rotary: x is ", x.dtype(), ", angle is ",
        angle.dtype(), "; convert angle");
  const detail::RotaryTables tables = detail::rotary_tables(angle, tokens);
  // y = scale R x:  dx = scale R^T dy, and R^T turns back
  return record(detail::turned(x, tables, heads, scale, false), "rotary", {x},
                [tables, heads, scale](const Tensor& dy) {
                  return Grads{detail::turned(dy, tables, heads, scale, true)};
                });
}

Rotated rotary(const Tensor& q, const Tensor& k, const Tensor& angle, i64 heads, double k_scale) {
#if PPMA_CUDA
  if (q.defined() && k.defined() && angle.defined() && q.device() == Device::cuda &&
      k.device() == q.device() && k.shape() == q.shape() && k.dtype() == q.dtype() &&
      q.rank() == 4 && heads >= 1 && q.dim(3) % (2 * heads) == 0 &&
      angle.shape() == Shape{q.dim(3) / heads} && angle.dtype() == accumulator_dtype(q.dtype()) &&
      !needs_grad({q, k})) {
    const i64 d = q.dim(3) / heads, tokens = q.dim(1) * q.dim(2);
    const detail::RotaryTables tables = detail::rotary_tables(angle, tokens);
    Rotated r{Tensor::empty(q.shape(), q.dtype(), q.device()),
              Tensor::empty(q.shape(), q.dtype(), q.device())};
    visit(q.device(), q.dtype(), "rotary", [&](auto on, auto t) {
      using T = decltype(t);
      if constexpr (std::is_same_v<decltype(on), Cuda>)
        kernels::rotary_both(on, q.dim(0), tokens, heads, d, q.data<T>(), k.data<T>(),
                             tables.cosine.data<acc_t<T>>(), tables.sine.data<acc_t<T>>(),
                             static_cast<acc_t<T>>(k_scale), r.q.data<T>(), r.k.data<T>());
    });
    return r;
  }
#endif
  return {rotary(q, angle, heads), rotary(k, angle, heads, k_scale)};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
