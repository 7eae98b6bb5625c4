// The definitions of include/ppma/nn/.
#define PPMA_DEFINES_NN
#include "ppma/nn/context.hpp"
#include "ppma/nn/draws.hpp"
#include "ppma/nn/image_by_image.hpp"
#include "ppma/nn/init.hpp"
#include "ppma/nn/layers.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/nn/summary_rows.hpp"
