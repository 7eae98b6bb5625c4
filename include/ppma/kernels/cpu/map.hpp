#pragma once
#include "ppma/core/names_begin.hpp"
// Elementwise loops: y = f(x), y = f(a, b), with or without broadcasting, for any f that takes and
// returns a Vec<T>.
//
// Broadcasting costs nothing per element: neighbouring axes that both operands walk in the same way
// become one, so what is left is a few outer axes and one inner row in which an operand is either
// contiguous or a single value.
// Work is cut into pieces at fixed places, so that no result depends on the threads.

#include <algorithm>
#include <type_traits>

#include "ppma/core/config.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI {

/// g(lane) for each lane of a Vec, or g(x) of a scalar: for functions that have no vector form.
template <class V, class G>
PPMA_HD PPMA_INLINE V each_lane(V x, G g) {
  if constexpr (std::is_floating_point_v<V>) {
    return g(x);
  } else {
    V y;
    for (i64 i = 0; i < lanes<detail::LaneOf<V>>; ++i) y[i] = g(x[i]);
    return y;
  }
}

/// A double as the element type of V: x * constant<V>(0.5).
template <class V>
PPMA_HD PPMA_INLINE constexpr auto constant(double value) {
  return static_cast<detail::LaneOf<V>>(value);
}

namespace kernels PPMA_WIDTH {

inline constexpr i64 map_piece = 8192;            // elements that one thread takes at a time
inline constexpr i64 least_work = 2 * map_piece;  // elements that are worth a thread

namespace detail {

// nvcc knows no Vec in a function that is __device__ too: in its translation units an f that takes
// scalars is called lane by lane, and the host compiler behind it puts the loop back into
// registers.
template <class T, class F>
struct ByLane {
  F f;
  template <class... V>
  PPMA_INLINE Vec<T> operator()(V... v) const {
    Vec<T> y{};
    for (i64 i = 0; i < lanes<T>; ++i) y[i] = f(T(v[i])...);
    return y;
  }
};

template <class T, class F>
PPMA_INLINE auto on_registers(F f) {
  if constexpr (PPMA_CUDA && (std::is_invocable_v<F, T> || std::is_invocable_v<F, T, T>))
    return ByLane<T, F>{f};
  else
    return f;
}

}  // namespace detail

/// y[i] = f(x[i]). y may be x.
template <class T, class F>
void map(Cpu, i64 n, const T* x, T* y, F function) {
  const auto f = detail::on_registers<T>(function);
  parallel_for((n + map_piece - 1) / map_piece, least_work / map_piece, [=](i64 first, i64 last) {
    const i64 end = std::min(n, last * map_piece);
    i64 i = first * map_piece;
    for (; i + lanes<T> <= end; i += lanes<T>) store<T>(y + i, f(load(x + i)));
    if (i < end) store_some<T>(y + i, f(load_some(x + i, end - i)), end - i);
  });
}

namespace detail {

// One row of y = f(a, b): an operand is n values, or one value for all of them. The end of a row of
// at least one vector is a vector that overlaps the one before; it is read first, since y may be an
// operand.
template <bool many_a, bool many_b, class T, class F>
PPMA_INLINE void map_row(i64 n, const T* a, const T* b, T* y, F f) {
  const Vec<T> a0 = splat(*a), b0 = splat(*b);
  const bool whole = n >= lanes<T>;
  const i64 last = whole ? n - lanes<T> : 0;
  const auto ending = [&](const T* p) { return whole ? load(p + last) : load_some(p, n); };
  const Vec<T> end = f(many_a ? ending(a) : a0, many_b ? ending(b) : b0);
  if (!whole) return store_some<T>(y, end, n);
  for (i64 i = 0; i < last; i += lanes<T>)
    store<T>(y + i, f(many_a ? load(a + i) : a0, many_b ? load(b + i) : b0));
  store<T>(y + last, end);
}

// An f whose operands never broadcast says so: one loop is compiled for it instead of four.
template <class F>
inline constexpr bool same_shapes = requires {
  F::same_shapes;
};

// Axes of the output with the distance that one step along them is in a and in b (0: broadcast).
struct Walk {
  int rank = 0;
  i64 size[Shape::max_rank] = {}, a[Shape::max_rank] = {}, b[Shape::max_rank] = {};
};

inline Walk walk(const Shape& out, const Shape& a, const Shape& b) {
  Walk w;
  i64 step_a[Shape::max_rank], step_b[Shape::max_rank], next_a = 1, next_b = 1;
  for (int k = out.rank() - 1; k >= 0; --k) {
    const int ka = k - (out.rank() - a.rank()), kb = k - (out.rank() - b.rank());
    const i64 na = ka < 0 ? 1 : a[ka], nb = kb < 0 ? 1 : b[kb];
    step_a[k] = na == 1 ? 0 : next_a;
    step_b[k] = nb == 1 ? 0 : next_b;
    next_a *= na;
    next_b *= nb;
  }
  for (int k = 0; k < out.rank(); ++k) {
    const i64 n = out[k];
    if (n == 1) continue;
    const int p = w.rank - 1;
    if (p >= 0 && w.a[p] == step_a[k] * n && w.b[p] == step_b[k] * n) {
      w.size[p] *= n, w.a[p] = step_a[k], w.b[p] = step_b[k];
    } else {
      w.size[w.rank] = n, w.a[w.rank] = step_a[k], w.b[w.rank] = step_b[k];
      ++w.rank;
    }
  }
  return w;
}

}  // namespace detail

/// y (shape `out`) = f(a, b), where a and b broadcast to `out`. y may be an operand of shape `out`.
template <class T, class F>
void map(Cpu, const Shape& out, const Shape& shape_a, const T* a, const Shape& shape_b, const T* b,
         T* y, F function) {
  if (out.numel() == 0) return;
  const auto f = detail::on_registers<T>(function);
  const detail::Walk w = detail::walk(out, shape_a, shape_b);
  const int outer = w.rank - 1;  // axes around the row
  const i64 n = w.rank == 0 ? 1 : w.size[outer];
  const bool many_a = w.rank > 0 && w.a[outer] != 0, many_b = w.rank > 0 && w.b[outer] != 0;
  const i64 pieces = (n + map_piece - 1) / map_piece, rows = out.numel() / n;
  parallel_for(rows * pieces, std::max<i64>(1, least_work / std::min(n, map_piece)),
               [=](i64 begin, i64 end) {
                 // Where row begin / pieces starts in a and b; from there on only steps are added.
                 i64 at[Shape::max_rank] = {}, row = begin / pieces, from_a = 0, from_b = 0;
                 for (int k = outer - 1; k >= 0; --k) {
                   at[k] = row % w.size[k];
                   row /= w.size[k];
                   from_a += at[k] * w.a[k];
                   from_b += at[k] * w.b[k];
                 }
                 for (i64 unit = begin; unit < end; ++unit) {
                   const i64 start = unit % pieces * map_piece,
                             count = std::min(map_piece, n - start);
                   const T* pa = a + from_a + (many_a ? start : 0);
                   const T* pb = b + from_b + (many_b ? start : 0);
                   T* py = y + unit / pieces * n + start;
                   if constexpr (detail::same_shapes<F>)
                     detail::map_row<true, true>(count, pa, pb, py, f);
                   else if (many_a && many_b)
                     detail::map_row<true, true>(count, pa, pb, py, f);
                   else if (many_a)
                     detail::map_row<true, false>(count, pa, pb, py, f);
                   else if (many_b)
                     detail::map_row<false, true>(count, pa, pb, py, f);
                   else
                     detail::map_row<false, false>(count, pa, pb, py, f);
                   if (start + count < n) continue;
                   for (int k = outer - 1; k >= 0; --k) {
                     from_a += w.a[k], from_b += w.b[k];
                     if (++at[k] < w.size[k]) break;
                     from_a -= at[k] * w.a[k], from_b -= at[k] * w.b[k];
                     at[k] = 0;
                   }
                 }
               });
}

}  // namespace kernels PPMA_WIDTH
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/kernels/cuda/map.cuh"
#endif

#include "ppma/core/names_end.hpp"
