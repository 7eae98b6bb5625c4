// Backward of criss-cross attention on the GPU: its kernels take nvcc as long as all others of
// that attention (polyline/criss_cross.cpp).
#define PPMA_DEFINES_POLYLINE_CRISS_CROSS_BACKWARD
#include "ppma/core/names_begin.hpp"
#include "ppma/kernels/cpu/criss_cross/attention.hpp"

namespace ppma::inline PPMA_ABI::kernels {

template void criss_cross_attention_backward(Cuda, Order, const AttentionArgs<float>&, const float*,
                                             const AttentionGradients<float>&);
template void criss_cross_attention_backward(Cuda, Order, const AttentionArgs<double>&,
                                             const double*, const AttentionGradients<double>&);
template void criss_cross_attention_backward(Cuda, Order, const AttentionArgs<bf16>&, const bf16*,
                                             const AttentionGradients<bf16>&);

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
