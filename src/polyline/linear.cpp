// Of include/ppma/polyline/: linear attention.
#define PPMA_DEFINES_POLYLINE_LINEAR
#include "ppma/polyline/linear.hpp"
