#pragma once
#include "ppma/core/names_begin.hpp"
// The functions of kernels/cpu/functions.hpp for one float or double, on the GPU as well: where
// both fit, these are chosen over the templates. On the device they are CUDA's own; on the host
// they are the templates'.

#include <cmath>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

#if PPMA_ON_DEVICE
#define PPMA_SCALAR(name, device_form, host_form)                 \
  PPMA_HD PPMA_INLINE float name(float x) { return device_form; } \
  PPMA_HD PPMA_INLINE double name(double x) { return device_form; }
#else
#define PPMA_SCALAR(name, device_form, host_form)               \
  PPMA_HD PPMA_INLINE float name(float x) { return host_form; } \
  PPMA_HD PPMA_INLINE double name(double x) { return host_form; }
#endif

// x is the argument; the host forms name the template's instance.
#define PPMA_HOST(name) ::ppma::name<decltype(x)>(x)
PPMA_SCALAR(abs_of, ::fabs(x), PPMA_HOST(abs_of))
PPMA_SCALAR(exp_of, ::exp(x), PPMA_HOST(exp_of))
PPMA_SCALAR(erf_of, ::erf(x), PPMA_HOST(erf_of))
PPMA_SCALAR(tanh_of, ::tanh(x), PPMA_HOST(tanh_of))
PPMA_SCALAR(log_of, ::log(x), PPMA_HOST(log_of))
PPMA_SCALAR(log1p_unit, ::log1p(x), PPMA_HOST(log1p_unit))
PPMA_SCALAR(softplus_of, ::fmax(x, decltype(x)(0)) + ::log1p(::exp(-::fabs(x))),
            PPMA_HOST(softplus_of))
PPMA_SCALAR(sigmoid_of, decltype(x)(1) / (decltype(x)(1) + ::exp(-x)), PPMA_HOST(sigmoid_of))
#undef PPMA_HOST
#undef PPMA_SCALAR

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
