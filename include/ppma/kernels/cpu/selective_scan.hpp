#pragma once
#include "ppma/core/names_begin.hpp"
// The selective scan over a grid; formulas: ops/selective_scan.hpp. A thread takes strips of
// channels of one image: a strip's states of one token are in a few registers, and nothing of E S
// numbers a token is written. Backward computes the states of its strip again and keeps them.

#include <algorithm>
#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/functions.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Where the tokens of an image lie that a scan visits one after the other: lines of `line` tokens
/// `step` apart, which begin `line_step` apart.
struct SelectiveWalk {
  i64 first, line, step, line_step;
};

struct SelectiveShape {
  i64 batch, height, width, channels, states;
  SelectiveWalk walk;
};

/// What a scan reads: u, dt (batch,tokens,channels), a (channels,states), b, c
/// (batch,tokens,states), d (channels) or null; add, what y is added to, or null. `softplus`: step
/// sizes are softplus(dt).
template <class T>
struct SelectiveArgs {
  const T *u, *dt, *b, *c;
  const acc_t<T>*a, *d;
  const T* add;
  bool softplus;
};

/// Where the gradients go; of a, b, c and d as parts, by image and by strip, to be added up. `add`:
/// du is added to.
template <class T>
struct SelectiveGradients {
  T *du, *ddt;
  acc_t<T>* da;      // (batch,channels,states)
  acc_t<T>*db, *dc;  // (strips,batch,tokens,states)
  acc_t<T>* dd;      // (batch,channels)
  bool add;
};

namespace detail {

inline constexpr i64 strip_lanes = 2;  // registers of a strip

// Places of the tokens in the order of their visits.
inline std::vector<i64> selective_places(const SelectiveShape& s) {
  std::vector<i64> places;
  for (i64 t = 0; t < s.height * s.width; ++t)
    places.push_back(s.walk.first + t / s.walk.line * s.walk.line_step +
                     t % s.walk.line * s.walk.step);
  return places;
}

// Channels first .. first + n of one image, in registers that are zero behind them. Tokens t are
// counted in the order of their visits.
template <class T>
class SelectiveStrip {
 public:
  static constexpr i64 w = lanes<T>, size = strip_lanes * w;
  using V = Vec<T>;

  SelectiveStrip(const SelectiveShape& s, const SelectiveArgs<T>& x, const i64* places, i64 image,
                 i64 strip)
      : s_(s),
        x_(x),
        places_(places),
        at_(image * s.height * s.width),
        first_(strip * size),
        n_(std::min(size, s.channels - first_)),
        a_(static_cast<std::size_t>(s.states * size), T(0)),
        d_(static_cast<std::size_t>(size), T(0)) {
    if (x.d != nullptr) std::copy_n(x.d + first_, n_, d_.begin());
    for (i64 k = 0; k < s.states; ++k)
      for (i64 e = 0; e < n_; ++e) a_[index(k, e)] = x.a[(first_ + e) * s.states + k];
  }

  static i64 strips(i64 channels) { return (channels + size - 1) / size; }
  i64 first() const { return first_; }
  i64 count() const { return n_; }
  // Of a tensor (batch,tokens,channels): registers r of token t.
  V get(const T* p, i64 t, i64 r) const {
    const i64 left = std::min(w, n_ - r * w);
    const T* const from = p + token(t) * s_.channels + first_ + r * w;
    return left == w ? load(from) : left > 0 ? load_some(from, left) : V{};
  }
  void put(T* p, i64 t, i64 r, V v) const {
    const i64 left = std::min(w, n_ - r * w);
    T* const to = p + token(t) * s_.channels + first_ + r * w;
    if (left == w)
      store(to, v);
    else if (left > 0)
      store_some(to, v, left);
  }
  V a(i64 state, i64 r) const { return load(a_.data() + state * size + r * w); }
  V d(i64 r) const { return load(d_.data() + r * w); }
  V dt(i64 t, i64 r) const {
    const V raw = get(x_.dt, t, r);
    return x_.softplus ? softplus_of(raw) : raw;
  }
  T b(i64 t, i64 state) const { return x_.b[token(t) * s_.states + state]; }
  T c(i64 t, i64 state) const { return x_.c[token(t) * s_.states + state]; }
  i64 token(i64 t) const { return at_ + places_[t]; }

  // g and h of token t from those to its left and above it (null: none), (states,size) each; h is g
  // where there is one row.
  void step(i64 t, const T* left, const T* above, T* g, T* h) const {
    for (i64 r = 0; r < strip_lanes; ++r) {
      const V delta = dt(t, r), in = delta * get(x_.u, t, r);
      for (i64 k = 0; k < s_.states; ++k) {
        const i64 at = k * size + r * w;
        const V decay = exp_of(delta * a(k, r));
        V state = in * b(t, k);
        if (left) state += decay * load(left + at);
        store(g + at, state);
        if (h == g) continue;
        if (above) state += decay * load(above + at);
        store(h + at, state);
      }
    }
  }

 private:
  std::size_t index(i64 state, i64 e) const { return static_cast<std::size_t>(state * size + e); }
  const SelectiveShape& s_;
  const SelectiveArgs<T>& x_;
  const i64* places_;
  i64 at_, first_, n_;
  std::vector<T> a_, d_;
};

// f(image, strip) for all.
template <class T, class F>
void for_strips(const SelectiveShape& s, F f) {
  const i64 strips = SelectiveStrip<T>::strips(s.channels);
  parallel_for(s.batch * strips, 1, [&](i64 begin, i64 end) {
    for (i64 k = begin; k < end; ++k) f(k / strips, k % strips);
  });
}

}  // namespace detail

/// How many states a kernel has for these.
inline i64 selective_scan_states(Cpu, i64 states) { return states; }

/// Whether a shape can be computed, how many numbers forward keeps for backward, and in how many
/// parts the gradients of b and c come.
template <class T>
bool selective_scan_fits(Cpu, const SelectiveShape&) {
  return true;
}
template <class T>
i64 selective_scan_kept(Cpu, const SelectiveShape&) {
  return 0;
}
template <class T>
i64 selective_scan_parts(Cpu, const SelectiveShape& s) {
  return detail::SelectiveStrip<T>::strips(s.channels);
}

/// y (batch,tokens,channels). Nothing is kept.
template <class T>
void selective_scan(Cpu, const SelectiveShape& s, const SelectiveArgs<T>& x, T* y, T*) {
  using Strip = detail::SelectiveStrip<T>;
  const std::vector<i64> places = detail::selective_places(s);
  const bool grid = s.height > 1;
  detail::for_strips<T>(s, [&](i64 image, i64 strip) {
    const Strip one(s, x, places.data(), image, strip);
    const i64 states = s.states * Strip::size;
    // g of the token to the left and of this one; the row above
    const Workspace<T> room((2 + (grid ? s.width : 0)) * states);
    T *const gs = room.data(), *const rows = gs + 2 * states;
    for (i64 i = 0; i < s.height; ++i)
      for (i64 j = 0; j < s.width; ++j) {
        const i64 t = i * s.width + j;
        T *const g = gs + j % 2 * states, *const h = grid ? rows + j * states : g;
        one.step(t, j > 0 ? gs + (j - 1) % 2 * states : nullptr, i > 0 ? h : nullptr, g, h);
        for (i64 r = 0; r < detail::strip_lanes; ++r) {
          Vec<T> sum = x.d == nullptr ? Vec<T>{} : one.d(r) * one.get(x.u, t, r);
          if (x.add != nullptr) sum += one.get(x.add, t, r);
          for (i64 k = 0; k < s.states; ++k)
            sum += load(h + k * Strip::size + r * Strip::w) * one.c(t, k);
          one.put(y, t, r, sum);
        }
      }
  });
}

/// Its gradients, from dy of y's shape.
///   p = C dy + (decay p) of the token below       of h
///   q = p    + (decay q) of the token to the right   of g, the input
template <class T>
void selective_scan_backward(Cpu, const SelectiveShape& s, const SelectiveArgs<T>& x, const T*,
                             const T* dy, const SelectiveGradients<T>& d) {
  using Strip = detail::SelectiveStrip<T>;
  using V = Vec<T>;
  const std::vector<i64> places = detail::selective_places(s);
  const bool grid = s.height > 1;
  detail::for_strips<T>(s, [&](i64 image, i64 strip) {
    const Strip one(s, x, places.data(), image, strip);
    const i64 states = s.states * Strip::size, tokens = s.height * s.width;
    // decay q of the token to the right; da; dd; g of all tokens, and of a grid h, and decay p of
    // the row below
    const Workspace<T> room((2 + tokens + (grid ? tokens + s.width : 0)) * states + Strip::size);
    T *const right = room.data(), *const da = right + states, *const dd = da + states,
             *const gs = dd + Strip::size, *const hs = grid ? gs + tokens * states : gs,
             *const below = hs + tokens * states;
    std::fill_n(da, states + Strip::size, T(0));
    for (i64 t = 0; t < tokens; ++t)
      one.step(t, t % s.width > 0 ? gs + (t - 1) * states : nullptr,
               t >= s.width ? hs + (t - s.width) * states : nullptr, gs + t * states,
               hs + t * states);
    T* const db = d.db + (strip * s.batch * tokens) * s.states;
    T* const dc = d.dc + (strip * s.batch * tokens) * s.states;
    for (i64 t = tokens - 1; t >= 0; --t) {
      const i64 j = t % s.width;
      const bool last_row = t + s.width >= tokens, last_column = j + 1 == s.width;
      T *const db_t = db + one.token(t) * s.states, *const dc_t = dc + one.token(t) * s.states;
      std::fill_n(db_t, s.states, T(0)), std::fill_n(dc_t, s.states, T(0));
      for (i64 r = 0; r < detail::strip_lanes; ++r) {
        const V dt = one.dt(t, r), u = one.get(x.u, t, r), grad = one.get(dy, t, r);
        V du = grad * one.d(r), ddt{};
        store(dd + r * Strip::w, V(load(dd + r * Strip::w) + grad * u));
        if (d.add) du += one.get(d.du, t, r);
        for (i64 k = 0; k < s.states; ++k) {
          const i64 at = k * Strip::size + r * Strip::w;
          const V a = one.a(k, r), decay = exp_of(dt * a);
          V p = grad * one.c(t, k);
          if (!last_row) p += load(below + j * states + at);
          const V q = last_column ? p : p + load(right + at);
          V of_decay{};
          if (t >= s.width) of_decay += p * load(hs + (t - s.width) * states + at);
          if (j > 0) of_decay += q * load(gs + (t - 1) * states + at);
          of_decay *= decay;  // now of dt a
          if (grid) store(below + j * states + at, decay * p);
          store(right + at, decay * q);
          store(da + at, load(da + at) + of_decay * dt);
          ddt += of_decay * a + q * u * one.b(t, k);
          du += q * dt * one.b(t, k);
          db_t[k] += lane_sum<T>(q * dt * u);
          dc_t[k] += lane_sum<T>(grad * load(hs + t * states + at));
        }
        if (x.softplus) ddt *= sigmoid_of(one.get(x.dt, t, r));
        one.put(d.du, t, r, du), one.put(d.ddt, t, r, ddt);
      }
    }
    std::copy_n(dd, one.count(), d.dd + image * s.channels + one.first());
    for (i64 e = 0; e < one.count(); ++e)
      for (i64 k = 0; k < s.states; ++k)
        d.da[(image * s.channels + one.first() + e) * s.states + k] = da[k * Strip::size + e];
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/selective_scan.cuh"
#include "ppma/kernels/cuda/selective_scan_backward.cuh"
#endif

#include "ppma/core/names_end.hpp"
