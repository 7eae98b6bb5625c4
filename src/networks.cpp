// The definitions of include/ppma/networks/.
#define PPMA_DEFINES_NETWORKS
#include "ppma/networks/networks.hpp"

#include "ppma/networks/all.hpp"
#include "ppma/networks/biformer.hpp"
#include "ppma/networks/mambaout.hpp"
#include "ppma/networks/network.hpp"
#include "ppma/networks/parts.hpp"
#include "ppma/networks/spatial_mamba.hpp"
#include "ppma/networks/two_d_vmamba.hpp"
#include "ppma/networks/vmamba.hpp"
#include "ppma/networks/vvt.hpp"
