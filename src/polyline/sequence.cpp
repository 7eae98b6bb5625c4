// Of include/ppma/polyline/: attention with the masks of sequences.
#define PPMA_DEFINES_POLYLINE_SEQUENCE
#include "ppma/polyline/sequence.hpp"
