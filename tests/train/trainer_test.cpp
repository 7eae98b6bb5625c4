// The training loop on a network and a data set of a few lines: it learns, accumulation equals a
// larger batch, a resumed run continues bit for bit, and the log holds what was reported.

#include "ppma/train/trainer.hpp"

#include <unistd.h>

#include <filesystem>

#include "catch.hpp"
#include "thrown.hpp"
#include "train/toy.hpp"

using namespace ppma;
using namespace toy;

namespace {

struct File {
  std::string path =
      (std::filesystem::temp_directory_path() / ("ppma-train-" + std::to_string(::getpid())))
          .string();
  ~File() { std::filesystem::remove(path); }
};

}  // namespace

TEST_CASE("training learns, and reports every batch and epoch", "[train]") {
  Toy model;
  TrainOptions options = options_for(30);
  options.schedule.total = 30;
  options.clip = 5;
  Trainer<Toy> trainer(model, options);
  CHECK(trainer.optimizer().parameters().size() == 6);
  CHECK(trainer.weights().size() == 8);
  std::vector<EpochRecord> records;
  i64 batches = 0, test_batches = 0, bests = 0;
  trainer.run(toy_batches(8), toy_batches(48),
              {.on_batch =
                   [&](const StepReport& r) {
                     ++batches;
                     CHECK(r.batch == (batches - 1) % 6 + 1);
                     CHECK(r.batches == 6);
                     CHECK(r.images == 8 * r.batch);
                     CHECK(r.gradient_norm > 0);
                   },
               .on_evaluation = [&](i64, i64) { ++test_batches; },
               .on_epoch =
                   [&](const EpochRecord& r, bool best) {
                     records.push_back(r);
                     bests += best ? 1 : 0;
                   }});
  REQUIRE(records.size() == 30);
  CHECK(batches == 180);
  CHECK(test_batches == 60);
  CHECK(records[0].n_parameters == 16 * 6 + 16 + 2 * 16 + 3 * 16 + 3);
  CHECK(records[0].test.images == 48);
  CHECK(records[29].train_loss < 0.6 * records[0].train_loss);
  CHECK(records[29].test.acc1 > 90);
  CHECK(records[29].test_ema.acc1 > 90);
  CHECK(records[29].test.acc5 == 100);
  CHECK(bests >= 2);
  CHECK(trainer.best_acc1() >= records[29].best_acc1());
  CHECK(values(trainer.weights()) != values(trainer.average()));
}

TEST_CASE("a resumed run continues bit for bit", "[train]") {
  const File file;
  Toy straight_model, model;
  Trainer<Toy> straight(straight_model, options_for(4));
  std::vector<EpochRecord> expected, records;
  straight.run(toy_batches(8), toy_batches(48),
               {.on_epoch = [&](const EpochRecord& r, bool) { expected.push_back(r); }});
  const Observer observer{.on_epoch = [&](const EpochRecord& r, bool) { records.push_back(r); }};
  {
    Trainer<Toy> first(model, options_for(2));
    first.run(toy_batches(8), toy_batches(48), observer);
    first.save(file.path, {{"note", "kept"}});
  }
  CHECK(read_safetensors(file.path).metadata.at("note") == "kept");
  Toy other;
  Trainer<Toy> second(other, options_for(4));
  second.resume(file.path);
  CHECK(second.epoch() == 2);
  second.run(toy_batches(8), toy_batches(48), observer);
  CHECK(values(second.weights()) == values(straight.weights()));
  CHECK(values(second.average()) == values(straight.average()));
  CHECK(values(second.optimizer().state()) == values(straight.optimizer().state()));
  REQUIRE(records.size() == 4);
  for (std::size_t e = 0; e < 4; ++e) {
    records[e].seconds = expected[e].seconds = 0;
    CHECK(to_json(records[e]) == to_json(expected[e]));
  }
  CHECK(second.best_acc1() == straight.best_acc1());

  TrainOptions changed = options_for(4);
  changed.seed = 6;
  CHECK(says([&] { Trainer<Toy>(other, changed).resume(file.path); }, "must keep its seed"));
  changed = options_for(4);
  changed.ema_decay = 0;
  CHECK(says([&] { Trainer<Toy>(other, changed).resume(file.path); }, "keep ema_decay"));
  Toy smaller(false);
  CHECK(says([&] { Trainer<Toy>(smaller, options_for(4)).resume(file.path); },
             "has 8 tensors, the network 4"));
  write_safetensors(file.path, {{"w", Tensor::ones({1})}});
  CHECK(says([&] { second.resume(file.path); }, "not a training checkpoint"));
}

TEST_CASE("a step that accumulates four batches is the step of one batch of the same images",
          "[train]") {
  Toy a(false), b(false);  // without batch norm, which would see batches of another size
  TrainOptions options = options_for(1);
  // below the norm, so that it matters that clipping acts on the mean
  options.clip = 0.3;
  options.rate_per_epoch = true;  // the step's rate does not depend on the number of batches
  options.schedule.start = 0.01;
  double norm_a = 0, norm_b = 0;
  Trainer<Toy> once(a, options);
  once.run(toy_batches(32, 32), toy_batches(32, 32),
           {.on_batch = [&](const StepReport& r) { norm_a = r.gradient_norm; }});
  options.accumulate = 4;
  Trainer<Toy> four(b, options);
  four.run(toy_batches(8, 32), toy_batches(32, 32),
           {.on_batch = [&](const StepReport& r) { norm_b = r.gradient_norm; }});
  CHECK(norm_a > 0.3);
  CHECK(norm_b == Approx(norm_a).epsilon(1e-5));
  // AdamW's first step divides the gradient by its size: the means show it before that.
  const auto means_a = values(once.optimizer().state()), means_b = values(four.optimizer().state());
  for (std::size_t i = 0; i < means_a.size(); ++i)
    for (std::size_t k = 0; k < means_a[i].size(); ++k)
      CHECK(std::fabs(means_a[i][k] - means_b[i][k]) <= 1e-7);
  CHECK(means_a.back() == std::vector<double>{1});
  CHECK(means_b.back() == std::vector<double>{1});
}

TEST_CASE("a loss that is not finite stops with the place", "[train]") {
  Toy model;
  model.second.data<float>()[0] = std::numeric_limits<float>::infinity();
  Trainer<Toy> trainer(model, options_for(2));
  CHECK(says([&] { trainer.run(toy_batches(8), toy_batches(48)); },
             "epoch 0, batch 0; lower the learning rate"));
}

TEST_CASE("weights that are not finite are not saved, and not resumed", "[train]") {
  Toy model;
  Trainer<Toy> trainer(model, options_for(2));
  const File file;
  trainer.save(file.path);
  const std::vector<u8> good = read_file(file.path);
  Safetensors bad = read_safetensors(file.path);
  model.second.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(says([&] { trainer.save(file.path); },
             "second.weight holds values that are NaN or infinite"));
  CHECK(read_file(file.path) == good);
  for (auto& [name, tensor] : bad.tensors)
    if (name.starts_with("optimizer.square.") && tensor.dtype() == DType::f32)
      tensor.data<float>()[0] = std::numeric_limits<float>::infinity();
  write_safetensors(file.path, bad.tensors, bad.metadata);
  CHECK(says([&] { trainer.resume(file.path); }, "optimizer.square."));
  for (const char* key : {"epoch", "best_acc1", "ema_updates", "seed"}) {
    Safetensors wrong = parse_safetensors(good, "good");
    wrong.metadata[key] = "x";
    write_safetensors(file.path, wrong.tensors, wrong.metadata);
    CHECK(says([&] { trainer.resume(file.path); }, std::string(key) == "seed"
                                                       ? "was trained with seed x"
                                                       : std::string("its ") + key + " is not a"));
  }
}

TEST_CASE("the log: one JSON object a line", "[train]") {
  const File file;
  CHECK(read_log(file.path).empty());
  EpochRecord r;
  r.n_parameters = 14335272;
  r.train_lr = 1e-6;
  r.train_loss = 6.9142;
  r.test = {6.5, 0.252, 1.5, 50000};
  r.test_ema = {6.9, 0.1, 0.5, 50000};
  r.seconds = 2.5;
  CHECK(to_json(r) ==
        "{\"epoch\":0,\"n_parameters\":14335272,\"train_lr\":1e-06,\"train_loss\":6.9142,\"test_"
        "loss\":6.5,"
        "\"test_acc1\":0.252,\"test_acc5\":1.5,\"test_ema_loss\":6.9,\"test_ema_acc1\":0.1,\"test_"
        "ema_acc5\":0.5,"
        "\"seconds\":2.5}");
  std::string lines;
  for (r.epoch = 0; r.epoch < 2; ++r.epoch) lines += to_json(r) + "\n";
  r.test_ema.images = 0;
  write_file(file.path, lines + to_json(r) + "\n");
  const auto records = read_log(file.path);
  REQUIRE(records.size() == 3);
  CHECK(records[1].epoch == 1);
  CHECK(records[1].test_ema.acc1 == 0.1);
  CHECK(records[1].n_parameters == 14335272);
  CHECK(records[2].test.acc1 == 0.252);
  CHECK(records[2].test_ema.images == 0);
  write_file(file.path, std::string_view("{\"epoch\": 0}\nnonsense\n"));
  CHECK(says([&] { read_log(file.path); }, "line 2 is not a JSON object"));
}
