// Of include/ppma/polyline/: whole attention.
#define PPMA_DEFINES_POLYLINE_WHOLE
#include "ppma/polyline/whole_fused.hpp"
