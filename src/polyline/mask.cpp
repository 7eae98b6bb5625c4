// Of include/ppma/polyline/: paths, decays and masks.
#define PPMA_DEFINES_POLYLINE_MASK
#include "ppma/polyline/mask.hpp"

#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/masks.hpp"
#include "ppma/polyline/path.hpp"
#include "ppma/polyline/structured.hpp"
#include "ppma/polyline/types.hpp"
#include "ppma/polyline/volume.hpp"
