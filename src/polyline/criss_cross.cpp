// Of include/ppma/polyline/: criss-cross attention.
#define PPMA_DEFINES_POLYLINE_CRISS_CROSS
#include "ppma/polyline/fused.hpp"
