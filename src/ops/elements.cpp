// Of include/ppma/ops/: what is computed element by element.
#define PPMA_DEFINES_OPS_ELEMENTS
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/dropout.hpp"
#include "ppma/ops/elementwise.hpp"
