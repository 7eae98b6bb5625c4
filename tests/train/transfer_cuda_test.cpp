// What goes to the GPU and comes back beside the kernels, and the memory of captured steps.

#if PPMA_TEST_GPU

#include <algorithm>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "ppma/core/graph.cuh"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/train/replay.hpp"
#include "ppma/train/transfer.hpp"

using namespace ppma;

TEST_CASE("uploads arrive whole and in order, readbacks belong to their step", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Upload upload(Device::cuda);
  Readback readback(Device::cuda);
  // 100 tensors of odd sizes: more than a table holds; they grow from step to step, so the staging
  // memory does too.
  std::vector<Tensor> there;
  for (int step = 0; step < 6; ++step) {
    Rng rng(static_cast<u64>(step));
    std::vector<Tensor> here;
    there.clear();
    for (i64 i = 0; i < 100; ++i) {
      here.push_back(Tensor::randn({i * (step + 1) + 1}, rng));
      there.push_back(Tensor::empty(here.back().shape(), DType::f32, Device::cuda));
      upload.add(there.back(), here.back());
      here.back() = here.back().clone();  // the source may go
    }
    upload.send();
    for (std::size_t i = 0; i < here.size(); ++i)
      REQUIRE(there[i].to_vector<float>() == here[i].to_vector<float>());
    readback.ask({sum(Tensor::full({10}, step, DType::f32, Device::cuda)),
                  sum(Tensor::full({2}, step, DType::f64, Device::cuda))});
    if (step > 0)
      CHECK(readback.take() == std::vector<double>{10.0 * (step - 1), 2.0 * (step - 1)});
  }
  Tensor narrow = Tensor::empty({2}, DType::bf16, Device::cuda);
  CHECK_THROWS_AS(upload.add(narrow, Tensor::zeros({2})), Error);
  CHECK_THROWS_AS(readback.ask({narrow}), Error);
}

TEST_CASE("a tensor's source may change once it was sent, whatever runs before it",
          "[cuda][core]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Tensor busy = Tensor::zeros({1 << 26}, DType::f32, Device::cuda);
  for (int i = 0; i < 20; ++i) busy = add(busy, busy);
  // 60 MB, several times what is underway at most, and two that are too large for it.
  constexpr i64 most = detail::Uploads::most / 4;
  std::vector<i64> sizes{most, most + 1, 1, most + 5, most};
  for (i64 i = 0; i < 40; ++i) sizes.push_back(i * 9973 + 1);
  Tensor source = Tensor::zeros({most + 5});
  std::vector<Tensor> sent;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    std::fill_n(source.data<float>(), sizes[k], static_cast<float>(k + 1));
    sent.push_back(source.part(0, {sizes[k]}).to(Device::cuda));
    std::fill_n(source.data<float>(), sizes[k], -1.0f);
  }
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    INFO(k);
    CHECK(sent[k].to_vector<float>() ==
          std::vector<float>(static_cast<std::size_t>(sizes[k]), static_cast<float>(k + 1)));
  }
  // A graph would send again what lies there when it is launched.
  Replay step([&] { busy = Tensor::ones({4}).to(Device::cuda); }, Device::cuda);
  for (int i = 0; i < 4; ++i) step();
  CHECK_FALSE(step.captured());
  CHECK(busy.to_vector<float>() == std::vector<float>(4, 1.0f));
}

TEST_CASE("many copies in a launch, of any size and place", "[cuda][core]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const i64 step : {i64{1}, i64{4}, i64{16}}) {  // bytes that words may have
    const i64 n = 1 << 16;
    std::vector<double> expected(static_cast<std::size_t>(n), 0.0);
    Rng rng(1);
    Tensor from = Tensor::empty({n}, DType::uint8);
    for (i64 i = 0; i < n; ++i) from.data<u8>()[i] = static_cast<u8>(rng.below(256));
    const Tensor there = from.to(Device::cuda);
    Tensor to = Tensor::zeros({n}, DType::uint8, Device::cuda);
    std::vector<CopyPiece> pieces;
    for (i64 at = 0, i = 0; at + (i + 3) * step <= n && i < 150; ++i) {
      const i64 bytes = (i + 1) * step;
      pieces.push_back(
          {to.data<u8>() + at, there.data<u8>() + (n - at - bytes) / step * step, bytes});
      for (i64 b = 0; b < bytes; ++b)
        expected[static_cast<std::size_t>(at + b)] =
            from.data<u8>()[(n - at - bytes) / step * step + b];
      at += bytes + 2 * step;
    }
    copy_many(Device::cuda, pieces);
    CHECK(to.to_vector<double>() == expected);
  }
}

TEST_CASE("memory that a captured step writes to is nobody else's", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const Tensor x = Tensor::full({1000}, 3, DType::f32, Device::cuda);
  Tensor y;
  Replay step([&] { y = add(mul(mul(x, x), x), x); }, Device::cuda);
  for (int i = 0; i < 3; ++i) step();
  REQUIRE(step.captured());
  // Taken after the capture: as many tensors of this size as the step has results, and more.
  std::vector<Tensor> others;
  for (int i = 0; i < 8; ++i) others.push_back(Tensor::full({1000}, i, DType::f32, Device::cuda));
  step();
  for (int i = 0; i < 8; ++i)
    CHECK(others[static_cast<std::size_t>(i)].to_vector<float>() ==
          std::vector<float>(1000, static_cast<float>(i)));
  CHECK(y.to_vector<float>() == std::vector<float>(1000, 30.f));
}

TEST_CASE("a captured step takes memory that no run before it took", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const Tensor x = Tensor::full({100000}, 3, DType::f32, Device::cuda);
  Tensor y;
  std::vector<Tensor> others;  // what the run before gave back
  Replay step(
      [&] {
        for (int i = 0; i < 8; ++i)
          others.push_back(Tensor::empty(x.shape(), DType::f32, Device::cuda));
        y = add(mul(mul(x, x), x), x);
      },
      Device::cuda);
  trim_memory(Device::cuda);
  for (int i = 0; i < 4; ++i) step();
  INFO(step.reason());
  CHECK(step.captured());
  CHECK(y.to_vector<float>() == std::vector<float>(100000, 30.f));
}

#if CUDART_VERSION >= 13000
TEST_CASE("a captured step has no edges that others imply", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaGraphCreate(&graph, 0) == cudaSuccess);
  // a - b - c - d, and two branches of a, x and y, which join in z
  cudaGraphNode_t a, b, c, d, x, y, z;
  for (cudaGraphNode_t* node : {&a, &b, &c, &d, &x, &y, &z})
    REQUIRE(cudaGraphAddEmptyNode(node, graph, nullptr, 0) == cudaSuccess);
  using Edges = std::vector<std::pair<cudaGraphNode_t, cudaGraphNode_t>>;
  Edges kept{{a, b}, {b, c}, {c, d}, {a, x}, {a, y}, {x, z}, {y, z}};
  Edges all = kept;
  for (const auto& implied : Edges{{a, c}, {a, d}, {b, d}, {a, z}}) all.push_back(implied);
  for (const auto& [from, to] : all)
    REQUIRE(cudaGraphAddDependencies(graph, &from, &to, nullptr, 1) == cudaSuccess);
  CHECK(cuda::detail::drop_implied(graph) == cudaSuccess);
  std::size_t n = 0;
  REQUIRE(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &n) == cudaSuccess);
  REQUIRE(n == kept.size());
  std::vector<cudaGraphNode_t> from(n), to(n);
  REQUIRE(cudaGraphGetEdges(graph, from.data(), to.data(), nullptr, &n) == cudaSuccess);
  Edges left;
  for (std::size_t e = 0; e < n; ++e) left.emplace_back(from[e], to[e]);
  std::sort(left.begin(), left.end()), std::sort(kept.begin(), kept.end());
  CHECK(left == kept);
  CHECK(cuda::detail::drop_implied(graph) == cudaSuccess);
  cudaGraphDestroy(graph);
}
#endif

#endif
