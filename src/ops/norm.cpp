// Of include/ppma/ops/: norms.
#define PPMA_DEFINES_OPS_NORM
#include "ppma/ops/norm.hpp"
