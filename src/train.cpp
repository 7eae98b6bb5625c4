// The definitions of include/ppma/train/.
#define PPMA_DEFINES_TRAIN
#include "ppma/train/finite.hpp"
#include "ppma/train/log.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/replay.hpp"
#include "ppma/train/run_folder.hpp"
#include "ppma/train/trainer.hpp"
#include "ppma/train/training_state.hpp"
#include "ppma/train/transfer.hpp"
