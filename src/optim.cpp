// The definitions of include/ppma/optim/.
#define PPMA_DEFINES_OPTIM
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/ema.hpp"
#include "ppma/optim/optimizer.hpp"
#include "ppma/optim/parameters.hpp"
#include "ppma/optim/poly_schedule.hpp"
#include "ppma/optim/schedule.hpp"
#include "ppma/optim/settings.hpp"
#include "ppma/optim/sgd.hpp"
#include "ppma/optim/step_schedule.hpp"
