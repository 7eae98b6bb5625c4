// The training loop on the GPU: the same steps as on the CPU, and a run that is saved there
// continues bit for bit.

#include "ppma/core/config.hpp"

#if PPMA_CUDA

#include <unistd.h>

#include <filesystem>

#include "catch.hpp"
#include "train/toy.hpp"

using namespace ppma;
using namespace toy;

namespace {

TrainOptions placed(Device device, DType dtype, i64 epochs) {
  TrainOptions options = options_for(epochs);
  options.at = {device, dtype};
  options.clip = 1;
  return options;
}

std::vector<double> losses(const TrainOptions& options) {
  Toy model;
  to(model, options.at.device);
  Trainer<Toy> trainer(model, options);
  std::vector<double> loss;
  trainer.run(toy_batches(8), toy_batches(16),
              {.on_batch = [&](const StepReport& r) { loss.push_back(r.loss); }});
  return loss;
}

}  // namespace

TEST_CASE("training on the GPU follows training on the CPU", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const auto want = losses(placed(Device::cpu, DType::f32, 2)),
             got = losses(placed(Device::cuda, DType::f32, 2));
  const auto rough = losses(placed(Device::cuda, DType::bf16, 2));
  REQUIRE(got.size() == want.size());
  REQUIRE(want.front() > want.back());
  for (std::size_t i = 0; i < want.size(); ++i) {
    CHECK(got[i] == Approx(want[i]).epsilon(1e-4));
    CHECK(rough[i] == Approx(want[i]).epsilon(2e-2));
  }
}

TEST_CASE("a run on the GPU is saved, and continues bit for bit", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const std::string path = (std::filesystem::temp_directory_path() /
                            ("ppma_cuda_run_" + std::to_string(getpid()) + ".safetensors"))
                               .string();
  const TrainOptions options = placed(Device::cuda, DType::bf16, 3);
  Toy straight, before, after;
  for (Toy* model : {&straight, &before, &after}) to(*model, Device::cuda);
  Trainer<Toy> whole(straight, options), first(before, options), second(after, options);
  whole.run(toy_batches(8), toy_batches(16));
  first.run_epoch(toy_batches(8), toy_batches(16));
  first.save(path);
  second.resume(path);
  CHECK(second.epoch() == 1);
  second.run(toy_batches(8), toy_batches(16));
  CHECK(values(second.weights()) == values(whole.weights()));
  CHECK(values(second.average()) == values(whole.average()));
  std::filesystem::remove(path);
}

TEST_CASE("a smaller last batch has a step of its own, and clipped steps follow the CPU",
          "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const auto run = [&](Device device) {
    TrainOptions options = placed(device, DType::f32, 3);
    options.clip = 0.05;
    Toy model;
    to(model, device);
    Trainer<Toy> trainer(model, options);
    std::vector<double> seen;
    trainer.run(toy_batches(5), toy_batches(16), {.on_batch = [&](const StepReport& r) {
                  seen.push_back(r.loss), seen.push_back(r.gradient_norm),
                      seen.push_back(static_cast<double>(r.images));
                }});
    return seen;
  };
  const auto want = run(Device::cpu), got = run(Device::cuda);
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).epsilon(1e-4));
}

#endif
