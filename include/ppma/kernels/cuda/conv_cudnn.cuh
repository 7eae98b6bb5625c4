#pragma once
#include "ppma/core/names_begin.hpp"
// Dense bf16 convolutions by cuDNN, where CMake's PPMA_CUDNN brings it; nothing needs it.
//
// Our own kernels multiply with the tensor instructions of sm_80; cuDNN has those of newer GPUs,
// which long sums are worth. Its older interface is enough: one algorithm that takes channels-last
// images as they lie and adds in one order, so that a result is the same each time. What it
// refuses, convolve() computes itself.
//
// The weights are packed at each call, as those of the other kernels are. A gradient of the input
// with stride 1 is a convolution as well, with the weights turned while they are packed.

#include "ppma/core/config.hpp"

#if PPMA_CUDA && PPMA_CUDNN

#include <cudnn.h>

#include <array>
#include <map>

#include "ppma/core/buffer.hpp"
#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// True if cuDNN did it, false if it has no kernel for the case. Errors: anything else.
inline bool cudnn_did(cudnnStatus_t status, const char* what) {
  if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED) return false;
  check(status == CUDNN_STATUS_SUCCESS, "conv2d: cuDNN could not ", what, ": ",
        cudnnGetErrorString(status), "; a build without PPMA_CUDNN does without it");
  return true;
}
inline void cudnn_require(cudnnStatus_t status, const char* what) {
  check(cudnn_did(status, what), "conv2d: cuDNN could not ", what, ": ",
        cudnnGetErrorString(status), "; a build without PPMA_CUDNN does without it");
}

/// The descriptors of one convolution and the scratch memory it needs; `found` is false where cuDNN
/// has no kernel.
struct CudnnPlan {
  cudnnTensorDescriptor_t x = nullptr, y = nullptr, bias = nullptr;
  cudnnFilterDescriptor_t filter = nullptr;
  cudnnConvolutionDescriptor_t convolution = nullptr;
  std::size_t workspace_bytes = 0;
  bool found = false;
};

inline constexpr cudnnConvolutionFwdAlgo_t cudnn_algorithm =
    CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;

/// A thread's handle and plans: cuDNN lets no two threads use one handle at once.
struct Cudnn {
  using Key = std::array<i64, 11>;

  cudnnHandle_t handle = nullptr;
  cudnnActivationDescriptor_t none = nullptr;
  std::map<Key, CudnnPlan> plans;

  Cudnn() {
    cudnn_require(cudnnCreate(&handle), "start");
    cudnn_require(cudnnCreateActivationDescriptor(&none), "describe an activation");
    cudnn_require(
        cudnnSetActivationDescriptor(none, CUDNN_ACTIVATION_IDENTITY, CUDNN_NOT_PROPAGATE_NAN, 0.0),
        "describe an activation");
  }
  ~Cudnn() {
    for (auto& [key, p] : plans) {
      for (const auto tensor : {p.x, p.y, p.bias}) cudnnDestroyTensorDescriptor(tensor);
      cudnnDestroyFilterDescriptor(p.filter);
      cudnnDestroyConvolutionDescriptor(p.convolution);
    }
    cudnnDestroyActivationDescriptor(none);
    cudnnDestroy(handle);
  }
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  static Cudnn& get() {
    thread_local Cudnn cudnn;
    cudnn_require(cudnnSetStream(cudnn.handle, cuda::stream()), "take the stream");
    return cudnn;
  }
};

inline CudnnPlan& cudnn_plan(Cudnn& cudnn, const ConvMap& m, bool with_bias) {
  const Cudnn::Key key{m.batch, m.h, m.w, m.ci, m.co, m.stride, m.y0, m.x0, m.th, m.tw, with_bias};
  const auto [at, added] = cudnn.plans.try_emplace(key);
  CudnnPlan& p = at->second;
  if (!added) return p;
  const auto size = [](i64 n) { return static_cast<int>(n); };
  cudnn_require(cudnnCreateFilterDescriptor(&p.filter), "describe weights");
  cudnn_require(cudnnCreateConvolutionDescriptor(&p.convolution), "describe a convolution");
  for (cudnnTensorDescriptor_t* tensor : {&p.x, &p.y, &p.bias})
    cudnn_require(cudnnCreateTensorDescriptor(tensor), "describe a tensor");
  const auto tensor = [&](cudnnTensorDescriptor_t t, i64 n, i64 c, i64 h, i64 w) {
    return cudnn_did(cudnnSetTensor4dDescriptor(t, CUDNN_TENSOR_NHWC, CUDNN_DATA_BFLOAT16, size(n),
                                                size(c), size(h), size(w)),
                     "describe a tensor");
  };
  p.found =
      tensor(p.x, m.batch, m.ci, m.h, m.w) && tensor(p.y, m.batch, m.co, m.oh, m.ow) &&
      tensor(p.bias, 1, m.co, 1, 1) &&
      cudnn_did(cudnnSetFilter4dDescriptor(p.filter, CUDNN_DATA_BFLOAT16, CUDNN_TENSOR_NHWC,
                                           size(m.co), size(m.ci), size(m.th), size(m.tw)),
                "describe weights") &&
      cudnn_did(cudnnSetConvolution2dDescriptor(p.convolution, size(-m.y0), size(-m.x0),
                                                size(m.stride), size(m.stride), 1, 1,
                                                CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
                "describe a convolution") &&
      cudnn_did(cudnnSetConvolutionMathType(p.convolution, CUDNN_TENSOR_OP_MATH),
                "describe a convolution") &&
      cudnn_did(cudnnGetConvolutionForwardWorkspaceSize(cudnn.handle, p.x, p.filter, p.convolution,
                                                        p.y, cudnn_algorithm, &p.workspace_bytes),
                "say how much memory it needs");
  return p;
}

// packed (co, taps, ci), cuDNN's channels-last filter. A thread takes all taps of one pair of
// channels: they lie together in `weights`, and threads next to each other write next to each
// other.
template <class T>
__global__ void __launch_bounds__(256) pack_filter(ConvMap m, ConvWeights<T> weights, T* packed) {
  for (i64 at = cuda::first(); at < m.co * m.ci; at += cuda::stride()) {
    const i64 i = at % m.ci, j = at / m.ci;
    const T* const from =
        weights.w + j * weights.n_step + i * weights.c_step + weights.ky * weights.kw + weights.kx;
    T* to = packed + j * m.th * m.tw * m.ci + i;
    for (i64 ty = 0; ty < m.th; ++ty)
      for (i64 tx = 0; tx < m.tw; ++tx, to += m.ci)
        *to = from[ty * weights.ky_step * weights.kw + tx * weights.kx_step];
  }
}

/// Whether cuDNN's words can say it: one group, whole packs of channels, the output in one piece,
/// the same rows and columns of zeros on both sides.
inline bool cudnn_takes(const ConvMap& m, const bf16* x, const bf16* bias, const bf16* out) {
  // first <= 0
  const auto size = [&](i64 n, i64 first, i64 taps) {
    return (n - 2 * first - taps) / m.stride + 1;
  };
  // Its kernels copy 16 bytes at once.
  const auto addresses = reinterpret_cast<std::uintptr_t>(x) |
                         reinterpret_cast<std::uintptr_t>(bias) |
                         reinterpret_cast<std::uintptr_t>(out);
  return m.groups == 1 && m.ci % 8 == 0 && m.co % 8 == 0 && m.co > 0 && m.out_col == m.co &&
         m.out_row == m.ow * m.co && m.out_batch == m.oh * m.out_row && m.y0 <= 0 && m.x0 <= 0 &&
         m.h - 2 * m.y0 >= m.th && m.w - 2 * m.x0 >= m.tw && m.oh == size(m.h, m.y0, m.th) &&
         m.ow == size(m.w, m.x0, m.tw) && m.batch * m.h * m.w * m.ci < (i64{1} << 31) &&
         m.batch * m.oh * m.ow * m.co < (i64{1} << 31) && addresses % 16 == 0;
}

/// Whether it is the faster one: on an H100 wherever there are more channels than an image has (1.6
/// times for 32 channels to 32, 1.8 for 2048 to 512), but not of few images: eight of PPMA-T take
/// 0.720 ms with it and 0.697 without (an H200; other limits: benchmarks/gpu.md, With cuDNN). A
/// matrix product is none of its business.
inline bool cudnn_pays(const ConvMap& m) {
  const i64 k = m.th * m.tw * m.ci, work = m.batch * m.oh * m.ow * m.co * k;
  return m.th * m.tw > 1 && m.ci >= 32 && m.co >= 32 && work >= i64{1} << 31;
}

/// The convolution, where cudnn_takes() the map. False if cuDNN has no kernel for it: `out` is
/// untouched then.
inline bool convolve_cudnn(const ConvMap& m, const bf16* x, const ConvWeights<bf16>& weights,
                           const bf16* bias, bf16* out) {
  Cudnn& cudnn = Cudnn::get();
  CudnnPlan& plan = cudnn_plan(cudnn, m, bias != nullptr);
  if (!plan.found) return false;
  const Workspace<bf16> packed(m.co * m.th * m.tw * m.ci, Device::cuda);
  const Workspace<u8> scratch(static_cast<i64>(plan.workspace_bytes), Device::cuda);
  pack_filter<<<cuda::blocks(m.co * m.ci, 256), 256, 0, cuda::stream()>>>(m, weights,
                                                                          packed.data());
  cuda::launched("conv2d");
  const float one = 1, zero = 0;
  const cudnnStatus_t status =
      bias ? cudnnConvolutionBiasActivationForward(
                 cudnn.handle, &one, plan.x, x, plan.filter, packed.data(), plan.convolution,
                 cudnn_algorithm, scratch.data(), plan.workspace_bytes, &zero, plan.y, out,
                 plan.bias, bias, cudnn.none, plan.y, out)
           : cudnnConvolutionForward(cudnn.handle, &one, plan.x, x, plan.filter, packed.data(),
                                     plan.convolution, cudnn_algorithm, scratch.data(),
                                     plan.workspace_bytes, &zero, plan.y, out);
  plan.found = cudnn_did(status, "convolve");  // else it is not asked again
  return plan.found;
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#endif

#include "ppma/core/names_end.hpp"
