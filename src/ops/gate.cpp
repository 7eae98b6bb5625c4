// Of include/ppma/ops/: gates.
#define PPMA_DEFINES_OPS_GATE
#include "ppma/ops/gate.hpp"
