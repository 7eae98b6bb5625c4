// Of include/ppma/ops/: depthwise convolutions.
#define PPMA_DEFINES_OPS_DEPTHWISE
#include "ppma/ops/depthwise.hpp"

#include "ppma/ops/depthwise_gelu.hpp"
