// Of include/ppma/ops/: rings.
#define PPMA_DEFINES_OPS_RINGS
#include "ppma/ops/rings.hpp"
