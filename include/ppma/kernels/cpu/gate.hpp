#pragma once
#include "ppma/core/names_begin.hpp"
// y = f(g) * m element by element, where g and the first channels of m are neighbours in the rows
// of a wider map (ops/gate.hpp).

#include <algorithm>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/columns.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Rows of a map with `map` channels: g at [first, first + width), of m the first width - tail
/// behind it; the other `tail` channels of m are rows of their own.
struct GateShape {
  i64 rows, map, first, width, tail;
  PPMA_HD i64 plain() const { return width - tail; }
  PPMA_HD i64 used() const { return width + plain(); }
  PPMA_HD i64 end() const { return first + used(); }
};

template <class T, class F>
void gate(Cpu, const GateShape& shape, const T* map, const T* tail, T* y, F f) {
  parallel_for(shape.rows, std::max<i64>(1, 16384 / shape.width), [=](i64 begin, i64 end) {
    const detail::ValueOf<F> value{f};
    const auto some = [=](i64 n, const T* g, const T* m, T* to) {
      columns<T>(n, [=](i64 c, auto lane) {
        using V = decltype(lane);
        put(to + c, V(detail::on_lanes<T>(value, get<V>(g + c)) * get<V>(m + c)));
      });
    };
    for (i64 r = begin; r < end; ++r) {
      const T* const g = map + r * shape.map + shape.first;
      T* const to = y + r * shape.width;
      some(shape.plain(), g, g + shape.width, to);
      some(shape.tail, g + shape.plain(), tail + r * shape.tail, to + shape.plain());
    }
  });
}

/// All of dmap, which is 0 where neither g nor m lies, and dtail.
template <class T, class F>
void gate_backward(Cpu, const GateShape& shape, const T* map, const T* tail, const T* dy, T* dmap,
                   T* dtail, F f) {
  parallel_for(shape.rows, std::max<i64>(1, 8192 / shape.width), [=](i64 begin, i64 end) {
    const detail::ValueOf<F> value{f};
    const detail::SlopeOf<F> slope{f};
    // dg = dy m f'(g),  dm = dy f(g)
    const auto some = [=](i64 n, const T* g, const T* m, const T* d, T* dg, T* dm) {
      columns<T>(n, [=](i64 c, auto lane) {
        using V = decltype(lane);
        const V at = get<V>(g + c), up = get<V>(d + c);
        put(dg + c, V(up * get<V>(m + c) * detail::on_lanes<T>(slope, at)));
        put(dm + c, V(up * detail::on_lanes<T>(value, at)));
      });
    };
    for (i64 r = begin; r < end; ++r) {
      const T *const g = map + r * shape.map + shape.first, *const d = dy + r * shape.width;
      T *const row = dmap + r * shape.map, *const dg = row + shape.first;
      std::fill(row, dg, T(0));
      std::fill(row + shape.end(), row + shape.map, T(0));
      some(shape.plain(), g, g + shape.width, d, dg, dg + shape.width);
      some(shape.tail, g + shape.plain(), tail + r * shape.tail, d + shape.plain(),
           dg + shape.plain(), dtail + r * shape.tail);
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/gate.cuh"
#endif

#include "ppma/core/names_end.hpp"
