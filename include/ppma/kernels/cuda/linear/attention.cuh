#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA on the GPU: in bf16 on the tensor cores (tensor.cuh) where heads have a width of 8, 16, ..
// 64; otherwise by scans (scans.cuh).

#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/linear/scans.cuh"
#include "ppma/kernels/cuda/linear/tensor_call.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_scan_gpu {

template <class A, class T>
__global__ void __launch_bounds__(256)
    add_layers(i64 n, int count, i64 stride, const A* layers, T* y) {
  for (i64 e = cuda::first(); e < n; e += cuda::stride()) {
    A sum = 0;
    for (int i = 0; i < count; ++i) sum += layers[i * stride + e];
    y[e] = T(sum);
  }
}

// From the gradient of running sums down the columns to that of what was summed; a thread a column.
template <class A>
__global__ void __launch_bounds__(128) column_decays(i64 columns, int height, int width,
                                                     const A* log_beta, const A* dc, A* dlog_beta) {
  for (i64 e = cuda::first(); e < columns; e += cuda::stride()) {
    const i64 at = e / width * height * width + e % width;
    A sum = 0;
    for (int i = height - 1; i > 0; --i) {
      sum += dc[at + i * width];
      dlog_beta[at + i * width] = is_closed(log_beta[at + i * width]) ? A(0) : sum;
    }
    dlog_beta[at] = 0;
  }
}

// The decays and rooms of a call, and its launches.
template <class T>
struct Run {
  using A = acc_t<T>;
  Pass<A> pass;
  i64 edges;
  Workspace<A> decays, room;

  Run(const AttentionArgs<T>& in, int arrays)
      : pass{in.shape,
             static_cast<int>((in.shape.head_width + group - 1) / group),
             static_cast<int>((in.shape.head_width + 31) / 32),
             nullptr,
             nullptr,
             nullptr,
             arrays},
        edges(in.shape.batch * in.shape.heads * (in.shape.height + 1) * (in.shape.width + 1)),
        decays(2 * edges, Device::cuda),
        room(pass.warps() * arrays * in.shape.width * slots, Device::cuda) {
    pass.alpha = decays.data(), pass.beta = decays.data() + edges, pass.room = room.data();
    edge_decays<<<cuda::blocks(edges, 256), 256, 0, cuda::stream()>>>(
        edges, static_cast<int>(in.shape.height), static_cast<int>(in.shape.width), in.log_alpha,
        in.log_beta, decays.data(), decays.data() + edges);
    cuda::launched("linear_attention");
  }
  unsigned warps() const { return static_cast<unsigned>(pass.warps()); }

  void operator()(bool v2h, bool h2v, const T* q, const T* k, const T* v, T* y) const {
    const i64 n = pass.x.batch * pass.x.tokens() * pass.x.channels();
    const Workspace<A> layers(pass.row_blocks * n, Device::cuda);
    zero_bytes(layers.data(), Device::cuda, pass.row_blocks * n * static_cast<i64>(sizeof(A)));
    attend<<<warps(), 32, 0, cuda::stream()>>>(pass, v2h, h2v, q, k, v, layers.data());
    add_layers<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(
        n, pass.row_blocks, n, static_cast<const A*>(layers.data()), y);
    cuda::launched("linear_attention");
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::linear_scan_gpu

namespace ppma::inline PPMA_ABI::kernels {

template <class T>
void linear_attention(Cuda, Paths paths, const AttentionArgs<T>& in, T* y) {
  if constexpr (std::is_same_v<T, bf16>)
    if (linear_tensor::suits(in.shape)) return linear_tensor::forward(paths, in, y);
  const bool v2h = paths != Paths::h2v, h2v = paths != Paths::v2h;
  linear_scan_gpu::Run<T>(in, h2v ? 2 : 1)(v2h, h2v, in.q, in.k, in.v, y);
}

template <class T>
void linear_attention_backward(Cuda, Paths paths, const AttentionArgs<T>& in, const T* dy,
                               const AttentionGradients<T>& d) {
  if constexpr (std::is_same_v<T, bf16>)
    if (linear_tensor::suits(in.shape)) return linear_tensor::backward(paths, in, dy, d);
  using A = acc_t<T>;
  const bool v2h = paths != Paths::h2v, h2v = paths != Paths::v2h;
  const AttentionShape& x = in.shape;
  const linear_scan_gpu::Run<T> run(in, 5);
  run(v2h, h2v, dy, in.v, in.k, d.dq);
  run(h2v, v2h, in.v, dy, in.q, d.dk);
  run(h2v, v2h, in.k, in.q, dy, d.dv);
  const i64 n = x.batch * x.heads * x.tokens();
  const int blocks = run.pass.blocks(), height = static_cast<int>(x.height),
            width = static_cast<int>(x.width);
  const Workspace<A> layers(2 * blocks * n, Device::cuda), dc(n, Device::cuda);
  zero_bytes(layers.data(), Device::cuda, 2 * blocks * n * static_cast<i64>(sizeof(A)));
  linear_scan_gpu::decay_gradients<<<run.warps(), 32, 0, cuda::stream()>>>(
      run.pass, v2h, h2v, in.q, in.k, in.v, dy, layers.data());
  const A* const sums = layers.data();
  linear_scan_gpu::add_layers<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(n, blocks, 2 * n,
                                                                                sums, d.dlog_alpha);
  linear_scan_gpu::add_layers<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(
      n, blocks, 2 * n, sums + n, dc.data());
  const i64 columns = x.batch * x.heads * x.width;
  linear_scan_gpu::column_decays<<<cuda::blocks(columns, 128), 128, 0, cuda::stream()>>>(
      columns, height, width, in.log_beta, static_cast<const A*>(dc.data()), d.dlog_beta);
  cuda::launched("linear_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
