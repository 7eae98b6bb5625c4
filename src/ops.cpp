// The definitions of include/ppma/ops/. Kernels for the CPU are compiled sooner in one unit;
// those for the GPU in units side by side.
#define PPMA_DEFINES_OPS_CONV
#define PPMA_DEFINES_OPS_DEPTHWISE
#define PPMA_DEFINES_OPS_PRODUCTS
#define PPMA_DEFINES_OPS_NORM
#define PPMA_DEFINES_OPS_ELEMENTS
#define PPMA_DEFINES_OPS_ROWS
#define PPMA_DEFINES_OPS_SELECTIVE
#define PPMA_DEFINES_OPS_DECAYED
#define PPMA_DEFINES_OPS_GATE
#define PPMA_DEFINES_OPS_LAYOUT
#define PPMA_DEFINES_OPS_IMAGES
#define PPMA_DEFINES_OPS_RINGS
#include "ops/conv.cpp"
#include "ops/decayed_sums.cpp"
#include "ops/depthwise.cpp"
#include "ops/elements.cpp"
#include "ops/gate.cpp"
#include "ops/images.cpp"
#include "ops/layout.cpp"
#include "ops/norm.cpp"
#include "ops/products.cpp"
#include "ops/rings.cpp"
#include "ops/rows.cpp"
#include "ops/selective_scan.cpp"
