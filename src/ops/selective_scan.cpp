// Of include/ppma/ops/: the selective scan.
#define PPMA_DEFINES_OPS_SELECTIVE
#include "ppma/ops/selective_scan.hpp"
