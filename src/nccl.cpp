// The definitions of parallel/nccl.hpp.
#define PPMA_DEFINES_NCCL
#include "ppma/parallel/nccl.hpp"
