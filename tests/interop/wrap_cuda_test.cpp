// Memory of the GPU that is not ours.

#if PPMA_TEST_GPU

#include <cuda_runtime.h>

#include <memory>
#include <utility>
#include <vector>

#include "ppma/dlpack.hpp"
#include "ppma/ops/matmul.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("memory of the GPU is used where it lies, and given back after the kernels that use it",
          "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU here");
  constexpr i64 n = 1024;
  float* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, n * n * sizeof(float)) == cudaSuccess);
  bool freed = false;
  std::shared_ptr<float> owner(memory, [&freed](float* p) { freed = cudaFree(p) == cudaSuccess; });
  Rng rng(1);
  const Tensor values = Tensor::randn({n, n}, rng);
  Tensor product;
  {
    Tensor x = Tensor::wrap(memory, {n, n}, owner, Device::cuda);
    owner.reset();
    x.copy_from(values);
    product = matmul(x, x);  // still running when x goes
    CHECK_FALSE(freed);
  }
  CHECK(freed);
  const Tensor again = values.to(Device::cuda);
  CHECK(product.to_vector<float>() == matmul(again, again).to_vector<float>());

  CHECK(says([&] { Tensor::wrap(again.data<float>() + 1, {n}, nullptr, Device::cuda); },
             "must lie at a multiple of 256 bytes (f32 on cuda)"));
  const Tensor fixed = Tensor::wrap(again.data<float>(), {n, n}, nullptr, Device::cuda);
  CHECK_FALSE(fixed.writable());

  DLManagedTensor* const out = to_dlpack(again);
  CHECK((out->dl_tensor.device.device_type == kDLCUDA &&
         out->dl_tensor.device.device_id == cuda::device_number()));
  const Tensor back = from_dlpack(out);
  CHECK((back.device() == Device::cuda && back.raw() == again.raw()));
}

#endif
