// The definitions of include/ppma/polyline/. Kernels for the CPU are compiled sooner in one unit;
// those for the GPU in units side by side.
#define PPMA_DEFINES_POLYLINE_WHOLE
#define PPMA_DEFINES_POLYLINE_CRISS_CROSS
#define PPMA_DEFINES_POLYLINE_LINEAR
#define PPMA_DEFINES_POLYLINE_MASK
#define PPMA_DEFINES_POLYLINE_SEQUENCE
#include "polyline/criss_cross.cpp"
#include "polyline/linear.cpp"
#include "polyline/mask.cpp"
#include "polyline/sequence.cpp"
#include "polyline/whole.cpp"
