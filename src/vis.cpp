// The definitions of include/ppma/vis/.
#define PPMA_DEFINES_VIS
#include "ppma/vis/colormap.hpp"
#include "ppma/vis/curve.hpp"
#include "ppma/vis/decay_places.hpp"
#include "ppma/vis/font.hpp"
#include "ppma/vis/intervals.hpp"
#include "ppma/vis/mask_maps.hpp"
#include "ppma/vis/mask_picture.hpp"
#include "ppma/vis/overlay.hpp"
#include "ppma/vis/palette.hpp"
#include "ppma/vis/panels.hpp"
#include "ppma/vis/picture.hpp"
#include "ppma/vis/segment_picture.hpp"
