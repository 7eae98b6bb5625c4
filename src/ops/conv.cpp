// Of include/ppma/ops/: dense convolutions.
#define PPMA_DEFINES_OPS_CONV
#include "ppma/ops/conv.hpp"

#include "ppma/ops/conv_transpose.hpp"
