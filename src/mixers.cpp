// The definitions of include/ppma/mixers/.
#define PPMA_DEFINES_MIXERS
#include "ppma/mixers/mixers.hpp"

#include "ppma/mixers/all.hpp"
#include "ppma/mixers/biformer.hpp"
#include "ppma/mixers/decayed_sums.hpp"
#include "ppma/mixers/mamba2.hpp"
#include "ppma/mixers/mambaout.hpp"
#include "ppma/mixers/mixer.hpp"
#include "ppma/mixers/none.hpp"
#include "ppma/mixers/retnet.hpp"
#include "ppma/mixers/selective.hpp"
#include "ppma/mixers/spatial_mamba.hpp"
#include "ppma/mixers/two_d_mamba.hpp"
#include "ppma/mixers/vicinity.hpp"
#include "ppma/mixers/vmamba.hpp"
#include "ppma/mixers/window.hpp"
