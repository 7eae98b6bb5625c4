// The definitions of include/ppma/tensor/.
#define PPMA_DEFINES_TENSOR
#include "ppma/tensor/tensor.hpp"

#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/constant.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "ppma/tensor/recompute.hpp"
