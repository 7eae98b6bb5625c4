// The definitions of networks as ONNX graphs, of io/, models/ and heads/.
#define PPMA_DEFINES_ONNX
#include "ppma/heads/onnx.hpp"
#include "ppma/heads/onnx_detector.hpp"
#include "ppma/io/onnx.hpp"
#include "ppma/io/onnx_ops.hpp"
#include "ppma/io/protobuf.hpp"
#include "ppma/models/onnx.hpp"
#include "ppma/models/onnx_attention.hpp"
#include "ppma/models/onnx_layers.hpp"
