// Of include/ppma/ops/: where elements lie, and rotations.
#define PPMA_DEFINES_OPS_LAYOUT
#include "ppma/ops/layout.hpp"

#include "ppma/ops/gather.hpp"
#include "ppma/ops/rotary.hpp"
