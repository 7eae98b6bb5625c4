// Of include/ppma/models/attention.hpp: what a kernel of the GPU computes.
#define PPMA_DEFINES_NORM_DECAY
#include "ppma/models/attention.hpp"
