// Of include/ppma/ops/: products of matrices.
#define PPMA_DEFINES_OPS_PRODUCTS
#include "ppma/ops/linear.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/residual.hpp"
