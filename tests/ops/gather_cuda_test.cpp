// Rows by index on the GPU at sizes that the op table does not reach: thousands of places in a row,
// packs and single elements, rows that nobody or everybody takes.

#if PPMA_TEST_GPU

#include "cuda_compare.hpp"
#include "ppma/ops/gather.hpp"

using namespace cuda_test;

TEST_CASE("rows by index on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  struct Sizes {
    i64 batch, rows, taken, width;
  };
  for (const Sizes& s : {Sizes{2, 49, 784, 128},
                         {1, 49, 2401, 8},
                         {3, 5, 7, 1},
                         {1, 1, 33, 1030},
                         {2, 700, 3, 12}}) {
    INFO(s.batch << " x " << s.rows << ", " << s.taken << " taken, " << s.width);
    Rng rng(2);
    Tensor index = Tensor::empty({s.batch, s.taken}, DType::int64);
    for (i64 i = 0; i < index.numel(); ++i) index.data<i64>()[i] = i * i * 7 % 11 * i % s.rows;
    compare("gather_rows", [](In in) { return gather_rows(in[0], in[1]); },
            {Tensor::randn({s.batch, s.rows, s.width}, rng, 1, DType::f64), index});
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const Tensor x = cast(Tensor::randn({s.batch, s.taken}, rng, 1, DType::f64), dtype);
      for (const i64 k : {i64{1}, (s.taken + 1) / 2, std::min<i64>(s.taken, 100)})
        CHECK(top_k(x.to(Device::cuda), k).to(Device::cpu).to_vector<i64>() ==
              top_k(cast(x, DType::f64), k).to_vector<i64>());
    }
  }
}

#endif
