// Backward of whole attention on the GPU: its kernels take nvcc longer than all others of that
// attention (polyline/whole.cpp).
#define PPMA_DEFINES_POLYLINE_WHOLE_BACKWARD
#include "ppma/core/names_begin.hpp"
#include "ppma/kernels/cpu/whole/attention.hpp"

namespace ppma::inline PPMA_ABI::kernels {

template void whole_attention_backward(Cuda, Paths, const AttentionArgs<float>&,
                                       const WholeKept<float>&, const float*,
                                       const AttentionGradients<float>&);
template void whole_attention_backward(Cuda, Paths, const AttentionArgs<double>&,
                                       const WholeKept<double>&, const double*,
                                       const AttentionGradients<double>&);
template void whole_attention_backward(Cuda, Paths, const AttentionArgs<bf16>&,
                                       const WholeKept<bf16>&, const bf16*,
                                       const AttentionGradients<bf16>&);

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
