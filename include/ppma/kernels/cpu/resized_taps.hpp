#pragma once
#include "ppma/core/names_begin.hpp"
// Nine maps of one small grid, one a tap of a 3x3 convolution, resized to a larger grid and added
// where their taps see them.

#include <algorithm>
#include <span>

#include "ppma/kernels/cpu/resize.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// z (batch, rows.size, cols.size, 9, channels), for an output grid rows.n x cols.n.
template <class T>
struct TapsMap {
  Axis rows, cols;
  const T* z;
};

/// out (batch, h, w, channels) = y + sum over the maps and the taps (ty, tx) of
/// resize(z_tap)[i + ty - 1, j + tx - 1], 0 outside of the grid. All maps have one output grid.
template <class T>
void add_resized_taps(Cpu, i64 batch, i64 channels, std::span<const TapsMap<T>> maps, const T* y,
                      T* out) {
  const i64 h = maps[0].rows.n, w = maps[0].cols.n, row_size = w * channels;
  parallel_for(batch * h, 1, [=](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit) {
      T* const row = out + unit * row_size;
      std::copy_n(y + unit * row_size, row_size, row);
      for (const TapsMap<T>& map : maps)
        for (i64 tap = 0; tap < 9; ++tap) {
          const i64 i = unit % h + tap / 3 - 1, first = tap % 3 == 0 ? 1 : 0,
                    last = tap % 3 == 2 ? w - 1 : w, cell = 9 * channels;
          if (i < 0 || i >= h) continue;
          const Axis::Tap r = map.rows.out(i);
          const T *const top = map.z + (unit / h * map.rows.size + r.low) * map.cols.size * cell +
                               tap * channels,
                         *const bottom = top + (r.high - r.low) * map.cols.size * cell;
          const T fr = static_cast<T>(r.f);
          for (i64 j = first; j < last; ++j) {
            const Axis::Tap c = map.cols.out(j + tap % 3 - 1);
            const T fc = static_cast<T>(c.f);
            const T *a = top + c.low * cell, *b = top + c.high * cell;
            const T *d = bottom + c.low * cell, *e = bottom + c.high * cell;
            T* const to = row + j * channels;
            for (i64 k = 0; k < channels; ++k)
              to[k] +=
                  (1 - fr) * ((1 - fc) * a[k] + fc * b[k]) + fr * ((1 - fc) * d[k] + fc * e[k]);
          }
        }
    }
  });
}

/// The gradient of one map's z from that of the output.
template <class T>
void resized_taps_backward(Cpu, i64 batch, i64 channels, const Axis& rows, const Axis& cols,
                           const T* dy, T* dz) {
  const i64 height = rows.size, width = cols.size, h = rows.n, w = cols.n;
  parallel_for(batch * height, 1, [=](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit)
      for (i64 j = 0; j < width; ++j) {
        const Axis::Range above = rows.in(unit % height), beside = cols.in(j);
        for (i64 tap = 0; tap < 9; ++tap) {
          T* const to = dz + ((unit * width + j) * 9 + tap) * channels;
          std::fill_n(to, channels, T(0));
          for (i64 a = above.begin; a < above.end; ++a) {
            const i64 i = a - tap / 3 + 1;
            const double of_row = rows.out(a).share(unit % height);
            if (i < 0 || i >= h || of_row == 0) continue;
            for (i64 b = beside.begin; b < beside.end; ++b) {
              const i64 at = b - tap % 3 + 1;
              const T share = static_cast<T>(of_row * cols.out(b).share(j));
              if (at < 0 || at >= w || share == 0) continue;
              const T* const from = dy + ((unit / height * h + i) * w + at) * channels;
              for (i64 k = 0; k < channels; ++k) to[k] += share * from[k];
            }
          }
        }
      }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/resized_taps.cuh"
#endif

#include "ppma/core/names_end.hpp"
