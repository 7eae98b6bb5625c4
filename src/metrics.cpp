// The definitions of include/ppma/metrics/.
#define PPMA_DEFINES_METRICS
#include "ppma/metrics/accuracy.hpp"
#include "ppma/metrics/average_precision.hpp"
#include "ppma/metrics/confusion.hpp"
#include "ppma/metrics/interval.hpp"
#include "ppma/metrics/mean_iou.hpp"
