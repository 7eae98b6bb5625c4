// Of include/ppma/ops/: sums, scans and what runs along rows.
#define PPMA_DEFINES_OPS_ROWS
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/ops/softmax.hpp"
