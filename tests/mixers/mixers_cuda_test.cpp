// Every token mixer on the GPU: in f64, f32 and with bf16 tokens what the CPU computes in f64, its
// gradients too; weights as inference has them; and training steps that are replayed as a graph.

#if PPMA_TEST_GPU

#include "cuda_compare.hpp"
#include "mixers/rounded.hpp"
#include "ppma/models/fold.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/train/replay.hpp"

using namespace mixers_test;

namespace mixers_cuda_test {

/// Of tokens and every parameter, in their order.
Tensor mixed(const std::string& name, const MixerConfig& c, cuda_test::In in) {
  Mixer m = mixer(name, c);
  to(m, accumulator_dtype(in[0].dtype()));
  to(m, in[0].device());
  std::size_t n = 1;
  for_each_field(m, [&](const std::string&, Tensor& t, Kind kind) {
    if (kind == Kind::parameter) t = in[n++];
  });
  return m.forward(in[0]);
}

/// How far the GPU may be from the CPU in f64. Most differences cancel nothing. The norm of retnet
/// takes the size of its sums out, so that the gradients of q and k are differences of large parts:
/// rounding alone is as much. Its bounds in bf16 are twice what rounding each written result does
/// in f64. With one token vicinity's weights cancel but for the 1e-4 beside them, and the gradient
/// of k is that rest: in f32 4e-4.
cuda_test::Tolerance bounds(const std::string& name, const MixerConfig& c, cuda_test::In in) {
  cuda_test::Tolerance most{1e-10, 5e-5, 6e-2, {}};
  if (name == "vicinity" && in[0].shape() == Shape{1, 1, 1, 8}) most.f32 = 1e-3;
  if (name != "retnet") return most;
  std::vector<Tensor> given = in;
  given[0] = in_bf16(in[0]);
  const auto with = [&](const Written& w) {
    return cuda_test::outcome([&](cuda_test::In x) { return written(c, x, w); }, given);
  };
  const std::vector<Tensor> want = with(as_it_is), got = with(in_bf16);
  for (std::size_t k = 0; k < want.size(); ++k)
    most.of_each.push_back(std::max(most.bf16, 2 * static_cast<double>(distance(got[k], want[k]))));
  return most;
}

/// Parameters with which no result is a difference of large ones that another way of rounding makes
/// another: vicinity divides by sums of what its relus leave of q and k, which with few channels a
/// head is nearly nothing in some tokens; here something is left in each. And what its squeeze
/// gives a relu is at least 6 times as far from 0 as a bf16 is precise (as drawn: 0.15 times).
Tensor drawn(const std::string& name, const Shape& tokens, const Field& f) {
  const Tensor t = f.tensor.detach();
  if (name != "vicinity" || tokens.numel() <= 8) return t;
  if (f.name == "q_proj.bias" || f.name == "k_proj.bias") return t + 1;
  return f.name == "squeeze" ? t + 0.02 : t;
}

PpmaConfig nano(const std::string& mixer) {
  PpmaConfig c = with_mixers(ppma_nano(), mixer);
  c.num_classes = 4, c.drop_path_rate = 0;
  return c;
}

}  // namespace mixers_cuda_test

TEST_CASE("mixers on the GPU give what the CPU gives, and all gradients", "[cuda][mixers]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace mixers_cuda_test;
  for (const MixerKind& kind : mixers())
    for (const Shape& shape : {Shape{2, 7, 7, 24}, Shape{1, 14, 14, 16}, Shape{1, 30, 56, 8},
                               Shape{1, 1, 1, 8}, Shape{2, 13, 9, 20}}) {
      INFO(kind.name << " " << shape.str());
      // of the fourth stage: which regions biformer takes would hang on the last bit of bf16
      const MixerConfig c{shape[3], 2, 3, 1};
      Mixer m = mixer(kind.name, c);
      std::vector<Tensor> in{tokens(shape)};
      std::vector<std::size_t> parameters;
      for (const Field& f : named_parameters(m)) {
        parameters.push_back(in.size());
        in.push_back(drawn(kind.name, shape, f));
      }
      cuda_test::compare(
          kind.name, [&](cuda_test::In x) { return mixed(kind.name, c, x); }, in, parameters,
          bounds(kind.name, c, in));
    }
}

TEST_CASE("biformer on the GPU takes the regions that the CPU takes", "[cuda][mixers]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const i64 stage : {0, 1, 2})
    for (const DType dtype : {DType::f64, DType::f32}) {
      Mixer here = mixer("biformer", {16, 2, stage, 0}),
            there = mixer("biformer", {16, 2, stage, 0}, dtype);
      to(there, Device::cuda);
      const Tensor x = tokens({2, 28, 14, 16});
      const Tensor y = there.forward(cast(x, dtype).to(Device::cuda));
      INFO("stage " << stage << ", " << to_string(dtype));
      CHECK(distance(y.to(Device::cpu), here.forward(x)) < (dtype == DType::f64 ? 1e-12 : 1e-5));
    }
}

TEST_CASE("mixers on the GPU in inference: weights and tokens of every dtype", "[cuda][mixers]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace mixers_cuda_test;
  const NoGrad off;
  const Tensor images = as(formula_image("mixers", {2, 3, 64, 64}), DType::f32);
  for (const MixerKind& kind : mixers()) {
    Ppma model(nano(kind.name), 1);
    const Tensor want = model.forward(images);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO(kind.name << ", " << to_string(dtype));
      Ppma other(nano(kind.name), 1);
      to(other, Device::cuda);
      prepare_for_inference(other, dtype);
      const Tensor y = other.forward(cast(images, dtype).to(Device::cuda));
      CHECK(distance(cast(y, DType::f32).to(Device::cpu), want) <
            (dtype == DType::f32 ? 1e-4 : 1e-1));
    }
  }
}

TEST_CASE("networks of mixers train on the GPU, and replayed steps are those that are not",
          "[cuda][mixers][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace mixers_cuda_test;
  for (const MixerKind& kind : mixers())
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO(kind.name << ", " << to_string(dtype));
      const Tensor images = cast(as(formula_image("mixers", {4, 3, 64, 64}), DType::f32), dtype)
                                .to(Device::cuda),
                   labels = Tensor::from<i64>({0, 1, 2, 3}, {4}).to(Device::cuda);
      std::vector<double> losses[2];
      for (const bool replayed : {false, true}) {
        Ppma model(nano(kind.name), 1);
        to(model, Device::cuda);
        AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
        Context context{true, Rng(1)};
        Tensor loss;
        Replay gradients(
            [&] {
              optimizer.zero_grad();
              loss = cross_entropy(model.forward(images, context), labels);
              loss.backward();
            },
            Device::cuda, replayed);
        for (int step = 0; step < 8; ++step) {
          gradients();
          losses[replayed].push_back(loss.item());
          optimizer.step(1e-3);
        }
        INFO(gradients.reason());
        CHECK(gradients.captured() == replayed);
      }
      CHECK(losses[0] == losses[1]);
      CHECK(losses[0].back() < losses[0].front());
    }
}

#endif
