// Of include/ppma/ops/: decayed sums of a sequence.
#define PPMA_DEFINES_OPS_DECAYED
#include "ppma/ops/decayed_sums.hpp"
