// Rings on the GPU at sizes of networks, against the CPU: what the op table's do not reach, many
// channels, images and rows.

#if PPMA_TEST_GPU

#include "cuda_compare.hpp"
#include "ppma/ops/rings.hpp"

using namespace cuda_test;

TEST_CASE("rings on the GPU: as on the CPU, zeros and edges beyond the grid", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Beyond beyond : {Beyond::zeros, Beyond::edges})
    for (const Shape& s : {Shape{2, 56, 56, 6}, Shape{3, 7, 7, 130}, Shape{1, 25, 1, 66},
                           Shape{2, 1, 30, 2}, Shape{1, 9, 8, 7}}) {
      INFO(s.str() << (beyond == Beyond::zeros ? " zeros" : " edges"));
      Rng rng(5);
      compare("rings_conv2d", [beyond](In in) { return rings_conv2d(in[0], in[1], beyond); },
              {Tensor::randn(s, rng, 1, DType::f64), Tensor::randn({27, s[3]}, rng, 1, DType::f64)},
              {1}, {1e-11, 1e-5, 2e-2});
    }
}

#endif
