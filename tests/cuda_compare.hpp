#pragma once
// For tests of GPU kernels: one function on the GPU in f64, f32 and bf16 against the CPU in float64
// on the same, rounded inputs: its value and the gradients of its inputs; twice, for the same bits;
// into memory full of NaNs.

#if PPMA_TEST_GPU

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "catch.hpp"
#include "distance.hpp"
#include "ppma/core/cuda.cuh"
#include "ppma/ops/layout.hpp"
#include "ppma/tensor/autograd.hpp"

namespace cuda_test {

using namespace ppma;
using In = const std::vector<Tensor>&;

/// Fills the pool's free blocks that a tensor of so many bytes could get with ones: an unwritten
/// element is a NaN.
inline void poison(i64 bytes) {
  std::vector<Tensor> held;
  for (const i64 before = memory_stats(Device::cuda).heap_calls;
       before == memory_stats(Device::cuda).heap_calls;) {
    held.push_back(Tensor::empty({bytes}, DType::uint8, Device::cuda));
    cuda::require(
        cudaMemsetAsync(held.back().raw(), 0xff, static_cast<std::size_t>(bytes), cuda::stream()),
        "poison");
  }
}

/// x (few,...) again and again along its first axis: (most,...), the last time perhaps in part.
inline Tensor repeated(const Tensor& x, i64 most) {
  const i64 few = x.dim(0);
  std::vector<Tensor> parts(static_cast<std::size_t>(most / few), x);
  if (most % few > 0) parts.push_back(narrow(x, 0, 0, most % few));
  return parts.size() == 1 ? parts[0] : concat(parts, 0);
}

/// Whether two tensors have the same bits; a NaN equals itself.
inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

/// Whether x is its first `few` samples again and again, to the last bit: what a kernel computes of
/// a sample has nothing to do with its place in the batch.
inline bool repeats(const Tensor& x, i64 few) {
  const i64 most = x.dim(0);
  return most <= few || same_bits(narrow(x, 0, few, most - few), narrow(x, 0, 0, most - few));
}

/// A gradient that arrives at a result of this shape, on the CPU in f64: exact in bf16.
inline Tensor arriving(const Shape& shape) {
  Tensor dy = Tensor::empty(shape, DType::f64);
  double* const to = dy.data<double>();
  for (i64 i = 0; i < dy.numel(); ++i) to[i] = static_cast<double>((i * 37 + 11) % 64) / 32 - 1;
  return dy;
}

/// The value, and the gradients of the inputs. few: the inputs are so many samples again and again
/// along their first axis, and so is the gradient that arrives; 0: all are different.
inline std::vector<Tensor> outcome(const std::function<Tensor(In)>& f, In inputs, i64 few = 0) {
  std::vector<Tensor> in;
  for (const Tensor& t : inputs) {
    in.push_back(t.detach());
    if (is_floating(t.dtype())) in.back().requires_grad(true);
  }
  const Tensor y = f(in);
  Shape different = y.shape();
  if (few > 0) different.set(0, few);
  const Tensor dy = cast(arriving(different), y.dtype()).to(y.device());
  y.backward(few > 0 ? repeated(dy, y.dim(0)) : dy);
  std::vector<Tensor> all{y.detach()};
  for (const Tensor& t : in) all.push_back(is_floating(t.dtype()) ? t.grad() : Tensor());
  return all;
}

struct Tolerance {
  double f64 = 1e-12, f32 = 2e-6, bf16 = 1e-2;
  // in bf16 of the value and of each gradient, where it is another
  std::vector<double> of_each{};
};

/// inputs: f64 (or int64) on the CPU. parameters: those that stay f32 beside bf16. batch: where the
/// GPU must have many samples for its bf16 kernels, so many along every input's first axis; those
/// that are given are compared with the CPU's, the others are them again. 0: as given.
inline void compare(const std::string& name, const std::function<Tensor(In)>& f, In inputs,
                    const std::vector<std::size_t>& parameters = {}, const Tolerance& most = {},
                    i64 batch = 0) {
  const i64 few = batch > 0 ? inputs[0].dim(0) : 0;
  const bool many = batch > few;
  const auto all = [&](const Tensor& t) { return many ? repeated(t, batch) : t; };
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    if (many && dtype != DType::bf16) continue;
    INFO(name << ", " << to_string(dtype));
    std::vector<Tensor> here, there;
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      const bool parameter = std::find(parameters.begin(), parameters.end(), k) != parameters.end();
      const Tensor rounded = is_floating(inputs[k].dtype())
                                 ? cast(inputs[k], parameter ? accumulator_dtype(dtype) : dtype)
                                 : inputs[k];
      there.push_back(all(rounded.to(Device::cuda)));
      here.push_back(is_floating(inputs[k].dtype()) ? cast(rounded, DType::f64) : rounded);
    }
    const std::vector<Tensor> want = outcome(f, here);
    std::vector<Tensor> got[2];
    std::set<i64> sizes;  // each is asked of the heap once
    for (const Tensor& t : want)
      for (const i64 bytes : {8, 4, 2})
        if (t.defined()) sizes.insert(bytes * (many ? t.numel() / few * batch : t.numel()));
    trim_memory(Device::cuda);  // few free blocks, all of which can be filled
    for (auto& run : got) {
      for (const i64 bytes : sizes) poison(bytes);
      for (const Tensor& t : outcome(f, there, many ? few : 0))
        run.push_back(t.defined() ? t.to(Device::cpu) : Tensor());
    }
    const double tolerance = dtype == DType::f64   ? most.f64
                             : dtype == DType::f32 ? most.f32
                                                   : most.bf16;
    for (std::size_t k = 0; k < want.size(); ++k) {
      if (!want[k].defined()) continue;
      INFO((k == 0 ? std::string("value") : "gradient of input " + std::to_string(k - 1)));
      REQUIRE(got[0][k].defined());
      // What is rounding of 0 (one class has no loss) is nothing to be relative to.
      const Tensor zeros = Tensor::zeros(want[k].shape(), want[k].dtype());
      const bool none = distance(want[k], zeros) < 1e-15;
      const bool own = dtype == DType::bf16 && k < most.of_each.size();
      CHECK(same_bits(got[0][k], got[1][k]));
      if (many) {
        CHECK(repeats(got[0][k], few));
        got[0][k] = narrow(got[0][k], 0, 0, few);
      }
      CHECK(distance(got[0][k], none ? zeros : want[k]) <= (own ? most.of_each[k] : tolerance));
    }
  }
}

}  // namespace cuda_test

#endif
