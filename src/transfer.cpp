// Of include/ppma/train/: what speaks to the GPU.
#define PPMA_DEFINES_TRANSFER
#include "ppma/train/transfer.hpp"

#include "ppma/train/replay.hpp"
