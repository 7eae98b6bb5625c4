#pragma once
#include "ppma/core/names_begin.hpp"
// Matrix products on the GPU by cuBLASLt. It thinks in columns: a row-major C is its C^T = op(B)^T
// op(A)^T, so that the operands change places and nothing is copied. f32 is exact unless
// cuda::allow_tf32(); bf16 sums in float.
//
// Which of its kernels is best is asked once a problem and kept. Its first answer can take half as
// long again as the best of its answers (100,352 x 128 x 128 bf16 on an H200: 29.8 and 18.1 us), so
// for large bf16 products all are timed once, and one takes its place that gives the same bits.
// Where it has none, a plain tiled kernel does the work; products of few rows have a kernel of ours
// (few_rows.cuh).

#include <cublasLt.h>

#include <array>
#include <map>
#include <mutex>

#include "ppma/core/buffer.hpp"
#include "ppma/core/cuda.cuh"
#include "ppma/core/device.hpp"
#include "ppma/kernels/cuda/few_rows_run.cuh"
#include "ppma/kernels/cuda/gemm_choice.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T>
constexpr cudaDataType_t cuda_type() {
  return std::is_same_v<T, bf16>     ? CUDA_R_16BF
         : std::is_same_v<T, double> ? CUDA_R_64F
                                     : CUDA_R_32F;
}

inline void lt_require(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, "gemm: cublasLt could not ", what, " (status ",
        static_cast<i64>(status), ")");
}

/// What cuBLASLt needs for one problem; `found` is false where it has no kernel.
struct LtPlan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool found = false;
  // Kernels that may be faster, until that is known.
  std::array<cublasLtMatmulAlgo_t, most_candidates - 1> others{};
  int count = 0;
};

/// One handle, one workspace and the plans of a process. Never destroyed: it may be used until the
/// process ends.
struct Lt {
  static constexpr i64 workspace_bytes = i64{32} << 20;
  using Key = std::array<i64, 17>;

  std::mutex mutex;
  cublasLtHandle_t handle = nullptr;
  Workspace<u8> workspace{workspace_bytes, Device::cuda};
  std::map<Key, LtPlan> plans;

  static Lt& get() {
    static Lt* lt = [] {
      auto* made = new Lt;
      lt_require(cublasLtCreate(&made->handle), "start");
      return made;
    }();
    return *lt;
  }
};

// The alignment of p in bytes, at most 256.
inline i64 alignment_of(const void* p) {
  const auto at = reinterpret_cast<std::uintptr_t>(p) | 256;
  return static_cast<i64>(at & (~at + 1));
}

template <class T, class R>
LtPlan lt_plan(const Gemm<T, R>& g, Lt& lt, const std::array<i64, 3>& alignment) {
  LtPlan p;
  const bool tf32 = std::is_same_v<T, float> && cuda::allow_tf32();
  const auto compute = std::is_same_v<T, double> ? CUBLAS_COMPUTE_64F
                       : tf32                    ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                 : CUBLAS_COMPUTE_32F;
  lt_require(cublasLtMatmulDescCreate(&p.product, compute, cuda_type<acc_t<T>>()),
             "describe a product");
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const auto& value) {
    lt_require(cublasLtMatmulDescSetAttribute(p.product, name, &value, sizeof value),
               "describe a product");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, g.tb ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, g.ta ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (g.bias && !g.accumulate) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
  }
  const auto layout = [&](cublasLtMatrixLayout_t& l, cudaDataType_t type, i64 rows, i64 cols,
                          i64 ld, i64 stride) {
    lt_require(
        cublasLtMatrixLayoutCreate(&l, type, static_cast<u64>(rows), static_cast<u64>(cols), ld),
        "describe a matrix");
    const int batch = static_cast<int>(g.batch);
    lt_require(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch,
                                                sizeof batch),
               "describe a batch");
    lt_require(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                &stride, sizeof stride),
               "describe a batch");
  };
  layout(p.first, cuda_type<T>(), g.tb ? g.k : g.n, g.tb ? g.n : g.k, g.ldb, g.stride_b);
  layout(p.second, cuda_type<T>(), g.ta ? g.m : g.k, g.ta ? g.k : g.m, g.lda, g.stride_a);
  layout(p.result, cuda_type<R>(), g.n, g.m, g.ldc, g.stride_c);

  cublasLtMatmulPreference_t wish = nullptr;
  lt_require(cublasLtMatmulPreferenceCreate(&wish), "take a preference");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    lt_require(cublasLtMatmulPreferenceSetAttribute(wish, name, &value, sizeof value),
               "take a preference");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::size_t>(Lt::workspace_bytes));
  // Sums that are split keep the accumulator's precision until they are joined.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<u32>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<u32>(alignment[1]));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<u32>(alignment[0]));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<u32>(alignment[2]));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<u32>(alignment[2]));
  cublasLtMatmulHeuristicResult_t best[most_candidates]{};
  int count = 0;
  const auto status =
      cublasLtMatmulAlgoGetHeuristic(lt.handle, p.product, p.first, p.second, p.result, p.result,
                                     wish, most_candidates, best, &count);
  cublasLtMatmulPreferenceDestroy(wish);
  p.found = status == CUBLAS_STATUS_SUCCESS && count > 0 && best[0].state == CUBLAS_STATUS_SUCCESS;
  p.algorithm = best[0].algo;
  if (std::is_same_v<T, bf16> && std::is_same_v<R, bf16> && p.found && !g.accumulate &&
      g.add != g.c && g.batch == 1 && g.ldc == g.n && g.m * g.n * g.k >= i64{1} << 27)
    for (int i = 1; i < count; ++i)
      if (best[i].state == CUBLAS_STATUS_SUCCESS)
        p.others[static_cast<std::size_t>(p.count++)] = best[i].algo;
  return p;
}

// C (+)= op(A) op(B) + bias, any sizes: 16 x 16 results a block, one a thread.
template <class T, class R>
__global__ void __launch_bounds__(256) plain_gemm(Gemm<T, R> g) {
  using A = acc_t<T>;
  __shared__ A a[16][17], b[16][17];
  const int x = static_cast<int>(threadIdx.x) % 16, y = static_cast<int>(threadIdx.x) / 16;
  const i64 tiles = (g.n + 15) / 16, i0 = blockIdx.x / tiles * 16, j0 = blockIdx.x % tiles * 16;
  for (i64 z = blockIdx.y; z < g.batch; z += gridDim.y) {
    const T *const ga = g.a + z * g.stride_a, *const gb = g.b + z * g.stride_b;
    A sum = 0;
    for (i64 p0 = 0; p0 < g.k; p0 += 16) {
      const i64 i = i0 + (g.ta ? x : y), pa = p0 + (g.ta ? y : x), j = j0 + (g.tb ? y : x),
                pb = p0 + (g.tb ? x : y);
      (g.ta ? a[x][y] : a[y][x]) =
          i < g.m && pa < g.k ? static_cast<A>(ga[g.ta ? pa * g.lda + i : i * g.lda + pa]) : A(0);
      (g.tb ? b[x][y] : b[y][x]) =
          j < g.n && pb < g.k ? static_cast<A>(gb[g.tb ? j * g.ldb + pb : pb * g.ldb + j]) : A(0);
      __syncthreads();
#pragma unroll
      for (int p = 0; p < 16; ++p) sum += a[y][p] * b[p][x];
      __syncthreads();
    }
    if (i0 + y < g.m && j0 + x < g.n) {
      R& c = g.c[z * g.stride_c + (i0 + y) * g.ldc + j0 + x];
      const A add =
          g.add ? static_cast<A>(g.add[z * g.stride_c + (i0 + y) * g.ldc + j0 + x]) : A(0);
      c = R(sum + add +
            (g.accumulate ? static_cast<A>(c)
             : g.bias     ? static_cast<A>(g.bias[j0 + x])
                          : A(0)));
    }
  }
}

template <class From, class To>
__global__ void convert_kernel(i64 n, const From* x, To* y) {
  for (i64 i = cuda::first(); i < n; i += cuda::stride()) y[i] = static_cast<To>(x[i]);
}

}  // namespace detail

template <class T, class R>
void gemm(Cuda, const Gemm<T, R>& g) {
  if (g.m == 0 || g.n == 0 || g.batch == 0) return;
  if constexpr (std::is_same_v<T, bf16> && std::is_same_v<R, bf16>)
    if (g.k > 0 && detail::few_rows::run(g)) return;
  if (g.k > 0) {
    detail::Lt& lt = detail::Lt::get();
    const std::lock_guard<std::mutex> lock(lt.mutex);
    const bool with_bias = g.bias && !g.accumulate;
    const std::array<i64, 3> alignment{
        detail::alignment_of(g.a), detail::alignment_of(g.b),
        std::min(detail::alignment_of(g.c), g.add ? detail::alignment_of(g.add) : 256)};
    const i64 flags = g.ta | g.tb << 1 | g.accumulate << 2 | with_bias << 3 |
                      cuda::allow_tf32() << 4 | (g.add != nullptr) << 5;
    const detail::Lt::Key key{g.m,
                              g.n,
                              g.k,
                              g.lda,
                              g.ldb,
                              g.ldc,
                              g.batch,
                              g.stride_a,
                              g.stride_b,
                              g.stride_c,
                              flags,
                              detail::cuda_type<T>(),
                              detail::cuda_type<R>(),
                              alignment[0],
                              alignment[1],
                              alignment[2],
                              with_bias ? detail::alignment_of(g.bias) : 0};
    auto at = lt.plans.find(key);
    if (at == lt.plans.end()) at = lt.plans.emplace(key, detail::lt_plan(g, lt, alignment)).first;
    detail::LtPlan& plan = at->second;
    if (plan.found) {
      if (with_bias)
        detail::lt_require(
            cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g.bias,
                                           sizeof g.bias),
            "take a bias");
      const acc_t<T> one = 1, keep = g.accumulate || g.add ? 1 : 0;
      const auto multiply = [&](const cublasLtMatmulAlgo_t& by) {
        return cublasLtMatmul(lt.handle, plan.product, &one, g.b, plan.first, g.a, plan.second,
                              &keep, g.add ? g.add : g.c, plan.result, g.c, plan.result, &by,
                              lt.workspace.data(), detail::Lt::workspace_bytes, cuda::stream());
      };
      if constexpr (std::is_same_v<R, bf16>)
        if (plan.count > 0 && !cuda::capturing()) {
          const auto candidate = [&](int i) -> const cublasLtMatmulAlgo_t& {
            return i == 0 ? plan.algorithm : plan.others[static_cast<std::size_t>(i) - 1];
          };
          plan.algorithm =
              candidate(detail::fastest_of_equals(plan.count + 1, g.m * g.n, g.c, [&](int i) {
                return multiply(candidate(i)) == CUBLAS_STATUS_SUCCESS;
              }));
          plan.count = 0;
        }
      detail::lt_require(multiply(plan.algorithm), "multiply");
      return;
    }
  }
  const i64 tiles = (g.m + 15) / 16 * ((g.n + 15) / 16);
  detail::plain_gemm<<<dim3(static_cast<unsigned>(tiles),
                            static_cast<unsigned>(std::min<i64>(g.batch, 65535))),
                       256, 0, cuda::stream()>>>(g);
  cuda::launched("gemm");
}

template <class From, class To>
void convert_weights(Cuda, i64 n, const From* x, To* y) {
  if (n == 0) return;
  detail::convert_kernel<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(n, x, y);
  cuda::launched("convert_weights");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
