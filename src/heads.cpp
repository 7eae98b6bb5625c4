// The definitions of include/ppma/heads/.
#define PPMA_DEFINES_HEADS
#include "ppma/heads/boxes.hpp"
#include "ppma/heads/conv_module.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/heads/fpn.hpp"
#include "ppma/heads/losses.hpp"
#include "ppma/heads/mask_rcnn.hpp"
#include "ppma/heads/roi_heads.hpp"
#include "ppma/heads/rpn.hpp"
#include "ppma/heads/segmentor.hpp"
#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/heads/targets.hpp"
#include "ppma/heads/upernet.hpp"
