// Of include/ppma/models/{norm_product,attention}.hpp: what kernels of the GPU compute.
#define PPMA_DEFINES_NORM_DECAY
#include "ppma/models/attention.hpp"
