// 17: weights that somebody else trained.
//
// A checkpoint is a dict of named tensors with much around it: the optimiser's state, the arguments
// of the run, an average of the weights. What makes it ours is that our parameters have its names.
// So loading is: find the dict of weights, put every tensor where its name says, and report what
// had no place or stayed empty.
//
//   17_published_weights
//         a small file in the published format, with the logits it must give
//   17_published_weights ppma_tiny FILE.pth IMAGE...
//         the real thing: a published file, and photographs

#include <cmath>
#include <cstdio>
#include <filesystem>

#include "check.hpp"
#include "ppma/data/augment.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"

using namespace ppma;

namespace {

// A network whose weights are about to be loaded: drawing initial ones would be for nothing.
Ppma empty_network(const PpmaConfig& config) {
  const SkipInit skip;
  return Ppma(config);
}

int classify(const char* name, const char* file, char** images, int count) {
  Ppma model = empty_network(config_by_name(name));
  // strict: a name too many or too few is an error
  const LoadReport report = load_state_dict(model, load_weights(file));
  std::printf("%s: %s\n", file, report.text().c_str());
  for (int n = 0; n < count; ++n) {
    // What the network saw in training: the shorter side to 256, the middle 224 x 224, colours
    // around zero.
    Rng unused(0);
    const Tensor pixels = eval_transform(224)(read_image(images[n]), unused);
    const Tensor p = softmax(model.forward(normalize(pixels)));
    const i64 best = static_cast<i64>(argmax(p, -1).item());
    std::printf("%s: class %lld, probability %.3f\n", images[n], static_cast<long long>(best),
                p.data<float>()[best]);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc >= 4) return classify(argv[1], argv[2], argv + 3, argc - 3);

  const std::string folder =
      (std::filesystem::path(__FILE__).parent_path().parent_path() / "tests/reference/").string();
  const std::string file = folder + "mini_checkpoint.pth";

  // 1. What lies in a training checkpoint. The pickle is read as data: nothing in it is ever run.
  const PthFile checkpoint = read_pth(file);
  std::printf("in the checkpoint:");
  for (std::size_t i = 0; i < checkpoint.root().size(); ++i)
    std::printf(" %s", std::string(checkpoint.root().key(i).text()).c_str());
  std::printf("\n");

  // 2. The weights, and which network they are of. Published files say it by their names
  // ("ppma_tiny"); this one is smaller.
  const TensorMap weights = load_weights(file);
  std::printf("weights: %zu tensors, the first is %s %s\n", weights.size(),
              weights[0].first.c_str(), weights[0].second.shape().str().c_str());
  const Safetensors twin = read_safetensors(folder + "mini_weights.safetensors");
  Ppma model = empty_network(config_from_text(twin.metadata.at("config"), "mini_weights"));
  const LoadReport report = load_state_dict(model, weights);
  std::printf("loaded: %s\n", report.text().c_str());
  expect(report.complete(), "every tensor found its place");

  // 3. They compute what they computed where they come from.
  const Safetensors io = read_safetensors(folder + "mini_io.safetensors");
  // (2,10)
  const Tensor logits = model.forward(*find(io.tensors, "input")),
               want = *find(io.tensors, "eval.logits");
  double difference = 0, size = 0;
  for (i64 i = 0; i < logits.numel(); ++i) {
    const double a = logits.data<float>()[i], b = want.data<float>()[i];
    difference += (a - b) * (a - b), size += b * b;
  }
  expect(std::sqrt(difference / size) < 1e-5, "the logits are PyTorch's to five digits");
  std::printf("its two images are of class %lld and %lld\n",
              static_cast<long long>(argmax(logits, -1).data<i64>()[0]),
              static_cast<long long>(argmax(logits, -1).data<i64>()[1]));

  // 4. A file that does not fit says so, and changes nothing.
  PpmaConfig other = model.config;
  other.num_classes = 4;
  Ppma smaller(other);
  try {
    load_state_dict(smaller, weights);
  } catch (const Error& e) {
    std::printf("a head for 4 classes: %s\n", e.what());
  }
  // To train on classes of one's own, everything but the head is taken.
  const LoadReport part = load_state_dict(smaller, weights, {.strict = true, .ignore = {"head."}});
  std::printf("without the head: %s\n", part.text().c_str());
  return failures;
} catch (const Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}

// Exercises (solutions/13_18.cpp):
//   1. Rename one tensor of a file. What does loading it say?
//   2. Store weights in bf16. By how much can a number change, relative to itself?
