#pragma once
#include "ppma/core/names_begin.hpp"
// Devices as tags. A kernel is a set of overloads, kernel(Cpu, ...) and kernel(Cuda, ...); visit()
// picks one and is the library's only dispatch. A kernel that misses an overload is a compile
// error, never a surprise at run time.

#include <string>

#include "ppma/core/config.hpp"
#include "ppma/core/dtype.hpp"
#include "ppma/core/error.hpp"
#include "ppma/core/gpu.hpp"

namespace ppma::inline PPMA_ABI {

/// Where elements are: in the host's memory, or in a GPU's.
enum class Device : u8 { cpu, cuda };

struct Cpu {
  static constexpr Device device = Device::cpu;
};
struct Cuda {
  static constexpr Device device = Device::cuda;
};

/// "cpu" or "cuda".
inline std::string to_string(Device d) { return d == Device::cpu ? "cpu" : "cuda"; }

/// The type and dtype that sums, statistics and softmax of T are computed in: float for bf16, T
/// itself otherwise.
template <class T>
struct Accumulator {
  /// T itself.
  using type = T;
};
template <>
struct Accumulator<bf16> {
  using type = float;
};
/// The type of Accumulator.
template <class T>
using acc_t = typename Accumulator<T>::type;
constexpr DType accumulator_dtype(DType t) { return t == DType::bf16 ? DType::f32 : t; }

namespace detail {
// The errors of the functions below, which are instantiated for each call.
PPMA_ONCE inline void check_on_cpu(Device device, DType dtype, const char* op,
                                   const char* otherwise) {
  check(device == Device::cpu, op, otherwise, "; move the tensors with .to(Device::cpu)");
#if PPMA_F64
  check(dtype == DType::f32 || dtype == DType::f64, op, ": ", dtype,
        " is not computed on the cpu (f32 and f64 are); convert with .to(DType::f32)");
#else
  check(dtype == DType::f32, op, ": ", dtype,
        " is not computed on the cpu: f32 is, this program was compiled with PPMA_F64=0");
#endif
}

// f for the dtypes that the CPU computes in, when they were checked.
template <class F>
decltype(auto) visit_checked(DType dtype, F&& f) {
#if PPMA_F64
  if (dtype == DType::f64) return f(Cpu{}, double{});
#endif
  static_cast<void>(dtype);
  return f(Cpu{}, float{});
}
inline constexpr const char* without_cuda = ": this code was compiled without CUDA";
}  // namespace detail

/// Calls f(tag, T{}) for a device and a floating dtype: visit(x.device(), x.dtype(), "gelu",
/// [&](auto on, auto t) { using T = decltype(t); kernels::map(on, ...); }). `op` is named in the
/// error.
template <class F>
decltype(auto) visit(Device device, DType dtype, const char* op, F&& f) {
#if PPMA_CUDA
  if (device == Device::cuda) {
    check(is_floating(dtype), op, ": ", dtype,
          " is not computed on the GPU (f32, f64 and bf16 are); convert it first");
    if (dtype == DType::f32) return f(Cuda{}, float{});
    return dtype == DType::f64 ? f(Cuda{}, double{}) : f(Cuda{}, bf16{});
  }
#endif
  detail::check_on_cpu(device, dtype, op, detail::without_cuda);
  return detail::visit_checked(dtype, f);
}

/// visit() for kernels that exist for the CPU only: a tensor on the GPU is an error.
template <class F>
decltype(auto) visit_cpu(Device device, DType dtype, const char* op, F&& f) {
  detail::check_on_cpu(device, dtype, op, ": has no GPU kernel yet");
  return detail::visit_checked(dtype, f);
}

/// Calls f(tag) for a device: for kernels that move bytes, whatever they mean.
template <class F>
decltype(auto) visit_device(Device device, const char* op, F&& f) {
#if PPMA_CUDA
  if (device == Device::cuda) return f(Cuda{});
#endif
  detail::check_on_cpu(device, DType::f32, op, detail::without_cuda);
  return f(Cpu{});
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
