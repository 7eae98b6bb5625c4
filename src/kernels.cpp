// The definitions of include/ppma/kernels/. Kernels themselves are templates, compiled where
// operations call them.
#define PPMA_DEFINES_KERNELS
#include "ppma/kernels/cpu/amx.hpp"
#include "ppma/kernels/cpu/gemm_eigen.hpp"
#include "ppma/kernels/instruction_set.hpp"
