// Of include/ppma/ops/: pools, resizing and boxes.
#define PPMA_DEFINES_OPS_IMAGES
#include "ppma/ops/best_boxes.hpp"
#include "ppma/ops/conv_resized.hpp"
#include "ppma/ops/nms.hpp"
#include "ppma/ops/pool.hpp"
#include "ppma/ops/resize.hpp"
#include "ppma/ops/resized_loss.hpp"
#include "ppma/ops/roi_align.hpp"
