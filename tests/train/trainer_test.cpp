// The training loop on a network and a data set of a few lines: it learns, accumulation equals a
// larger batch, a resumed run continues bit for bit, and the log holds what was reported.

#include "ppma/train/trainer.hpp"

#include <unistd.h>

#include <array>
#include <barrier>
#include <cmath>
#include <filesystem>
#include <thread>

#include "catch.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/train/finite.hpp"
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
  options.rate = WarmupCosine{.peak = 0.02, .warmup = 1, .total = 30};
  options.clip = 5;
  ToyTrainer trainer(model, options);
  CHECK(trainer->optimizer().parameters().size() == 6);
  CHECK(trainer->weights().size() == 8);
  std::vector<ClassifierRecord> records;
  i64 batches = 0, test_batches = 0, bests = 0;
  trainer.run({.on_batch =
                   [&](const StepReport& r) {
                     ++batches;
                     CHECK(r.batch == (batches - 1) % 6 + 1);
                     CHECK(r.batches == 6);
                     CHECK(r.images == 8 * r.batch);
                     CHECK(r.gradient_norm > 0);
                   },
               .on_evaluation = [&](i64, i64) { ++test_batches; },
               .on_epoch =
                   [&](const ClassifierRecord& r, bool best) {
                     records.push_back(r);
                     bests += best ? 1 : 0;
                   }});
  REQUIRE(records.size() == 30);
  CHECK(batches == 180);
  CHECK(test_batches == 60);
  CHECK(records[0].n_parameters == 16 * 6 + 16 + 2 * 16 + 3 * 16 + 3);
  CHECK(records[0].test->images == 48);
  CHECK(records[29].train_loss < 0.6 * records[0].train_loss);
  CHECK(records[29].test->acc1 > 90);
  CHECK(records[29].test_ema->acc1 > 90);
  CHECK(records[29].test->acc5 == 100);
  CHECK(bests >= 2);
  CHECK(trainer->best() >= records[29].figure());
  CHECK(values(trainer->weights()) != values(trainer->average()));
}

TEST_CASE("a resumed run continues bit for bit", "[train]") {
  const File file;
  Toy straight_model, model;
  ToyTrainer straight(straight_model, options_for(4));
  std::vector<ClassifierRecord> expected, records;
  straight.run({.on_epoch = [&](const ClassifierRecord& r, bool) { expected.push_back(r); }});
  const Trainer<ClassificationTask<Toy>>::Observer observer{
      .on_epoch = [&](const ClassifierRecord& r, bool) { records.push_back(r); }};
  {
    ToyTrainer first(model, options_for(2));
    first.run(observer);
    first->save(file.path, {{"note", "kept"}});
  }
  CHECK(read_safetensors(file.path).metadata.at("note") == "kept");
  Toy other;
  ToyTrainer second(other, options_for(4));
  second->resume(file.path);
  CHECK(second->epoch() == 2);
  second.run(observer);
  CHECK(values(second->weights()) == values(straight->weights()));
  CHECK(values(second->average()) == values(straight->average()));
  CHECK(values(second->optimizer().state()) == values(straight->optimizer().state()));
  REQUIRE(records.size() == 4);
  for (std::size_t e = 0; e < 4; ++e) {
    records[e].seconds = expected[e].seconds = records[e].data_seconds = expected[e].data_seconds =
        0;
    CHECK(to_json(records[e]) == to_json(expected[e]));
  }
  CHECK(second->best() == straight->best());

  TrainOptions changed = options_for(4);
  changed.seed = 6;
  CHECK(says([&] { ToyTrainer(other, changed)->resume(file.path); }, "must keep its seed"));
  changed = options_for(4);
  changed.ema_decay = 0;
  CHECK(says([&] { ToyTrainer(other, changed)->resume(file.path); }, "keep ema_decay"));
  Toy smaller(false);
  CHECK(says([&] { ToyTrainer(smaller, options_for(4))->resume(file.path); },
             "has 8 tensors, the network 4"));
  write_safetensors(file.path, {{"w", Tensor::ones({1})}});
  CHECK(says([&] { second->resume(file.path); }, "not a training checkpoint"));
}

TEST_CASE("an epoch that rests after any batch goes on bit for bit", "[train]") {
  const File file;
  for (const i64 accumulate : {1, 2}) {
    TrainOptions options = options_for(2);
    options.accumulate = accumulate;
    std::vector<ClassifierRecord> expected;
    Toy straight_model;
    ToyTrainer straight(straight_model, options);
    straight.run({.on_epoch = [&](const ClassifierRecord& r, bool) { expected.push_back(r); }});
    for (i64 at = 1; at <= 12; ++at) {
      INFO("rests after batch " << at << ", " << accumulate << " a step");
      std::vector<ClassifierRecord> records;
      i64 batches = 0;
      bool asked = false;
      const Trainer<ClassificationTask<Toy>>::Observer observer{
          .on_batch = [&](const StepReport&) { ++batches; },
          .on_epoch = [&](const ClassifierRecord& r, bool) { records.push_back(r); },
          .rest = [&] { return batches >= at && !std::exchange(asked, true); }};
      Toy model, other;
      ToyTrainer first(model, options), second(other, options);
      first.run(observer);
      // Between steps alone; at the end of an epoch there is nothing left to rest from.
      const i64 stepped = (at + accumulate - 1) / accumulate * accumulate;
      CHECK(first->batch() == stepped % 6);
      first->save(file.path);
      second->resume(file.path);
      CHECK(second->batch() == first->batch());
      for (ToyTrainer* t : {&first, &second}) {
        if (t == &second) records.resize(static_cast<std::size_t>(second->epoch()));
        t->run(observer);
        CHECK(values((*t)->weights()) == values(straight->weights()));
        CHECK(values((*t)->average()) == values(straight->average()));
        CHECK(values((*t)->optimizer().state()) == values(straight->optimizer().state()));
        REQUIRE(records.size() == 2);
        for (std::size_t e = 0; e < 2; ++e) {
          CHECK(records[e].seconds > 0);
          records[e].seconds = expected[e].seconds = records[e].data_seconds =
              expected[e].data_seconds = 0;
          CHECK(to_json(records[e]) == to_json(expected[e]));
          records[e].seconds = 1;
        }
      }
    }
  }
}

TEST_CASE("a place within an epoch that cannot be is refused", "[train]") {
  const File file;
  Toy model;
  ToyTrainer trainer(model, options_for(2));
  trainer.run({.rest = [] { return true; }});
  REQUIRE(trainer->batch() == 1);
  trainer->save(file.path);
  const Safetensors saved = read_safetensors(file.path);
  const auto refuses = [&](const std::string& so_far, const char* why) {
    auto metadata = saved.metadata;
    metadata["so_far"] = so_far;
    write_safetensors(file.path, saved.tensors, metadata);
    return says([&] { trainer->resume(file.path); }, why);
  };
  const std::string right = saved.metadata.at("so_far");
  CHECK(right.starts_with("0 6 1 8 1 "));
  CHECK(refuses("", "the file is damaged"));
  CHECK(refuses("0 6 1 8 one 0 1 1 1 1 1 1 1", "the file is damaged"));
  CHECK(refuses("0 6 7 8 1 0 1 1 1 1 1 1 1", "7 of 6 batches"));
  CHECK(refuses("1" + right.substr(1), "rests in epoch 1 after 0 epochs"));
  auto metadata = saved.metadata;
  metadata["so_far"] = "0 5" + right.substr(3);
  write_safetensors(file.path, saved.tensors, metadata);
  trainer->resume(file.path);
  CHECK(says([&] { trainer.run({}); }, "had 5 batches and has now 6"));
}

TEST_CASE("a step that accumulates four batches is the step of one batch of the same images",
          "[train]") {
  Toy a(false), b(false);  // without batch norm, which would see batches of another size
  TrainOptions options = options_for(1);
  // below the norm, so that it matters that clipping acts on the mean
  options.clip = 0.3;
  // the step's rate does not depend on the number of batches
  options.rate = [](const Moment&) { return 0.01; };
  double norm_a = 0, norm_b = 0;
  ToyTrainer once(a, options, toy_batches(32, 32), toy_batches(32, 32));
  once.run({.on_batch = [&](const StepReport& r) { norm_a = r.gradient_norm; }});
  options.accumulate = 4;
  ToyTrainer four(b, options, toy_batches(8, 32), toy_batches(32, 32));
  four.run({.on_batch = [&](const StepReport& r) { norm_b = r.gradient_norm; }});
  CHECK(norm_a > 0.3);
  CHECK(norm_b == Approx(norm_a).epsilon(1e-5));
  // AdamW's first step divides the gradient by its size: the means show it before that.
  const auto means_a = values(once->optimizer().state()),
             means_b = values(four->optimizer().state());
  for (std::size_t i = 0; i < means_a.size(); ++i)
    for (std::size_t k = 0; k < means_a[i].size(); ++k)
      CHECK(std::fabs(means_a[i][k] - means_b[i][k]) <= 1e-7);
  CHECK(means_a.back() == std::vector<double>{1});
  CHECK(means_b.back() == std::vector<double>{1});
}

namespace {

// A task of a program's own: a line through points, its loss in two named parts.
struct Line {
  struct Batch {
    Tensor images, targets;  // x (B,1), y (B,1)
    std::vector<Tensor*> tensors() { return {&images, &targets}; }
  };
  struct Model {
    Tensor slope = parameter(Tensor::full({1, 1}, 0.5)), frozen = Tensor::full({1}, 3);
    template <class V>
    void fields(V& v) {
      v.parameter("slope", slope), v.parameter("frozen", frozen);
    }
  } model;
  i64 evaluations = 0;
  double steepest = 10;

  Loss loss(const Batch& batch, Context&) {
    const Tensor gap = sub(linear(batch.images, model.slope, Tensor()), batch.targets);
    const Tensor fit = mean(mul(gap, gap)), size = sum(mul(model.slope, model.slope));
    return {add(fit, size), {{"fit", fit}, {"size", size}, {"absent", Tensor()}}};
  }
  struct Quality {
    double nearness;
    double figure() const { return nearness; }
  };
  Quality evaluate(const Testing& how) {
    CHECK(how.epoch == ++evaluations * 2);
    check(model.slope.item() < steepest, "the line is too steep");
    return {model.slope.item()};
  }
};
BatchPlan<Line::Batch> points() {
  return {3, [](i64) {
            return [](i64 n) {
              const float x = static_cast<float>(n + 1);
              return Line::Batch{Tensor::from<float>({x, -x}, {2, 1}),
                                 Tensor::from<float>({2 * x, -2 * x}, {2, 1})};
            };
          }};
}

}  // namespace

TEST_CASE("a task of a program's own is trained with SGD, and its parts are reported", "[train]") {
  Line task;
  TrainOptions options;
  options.optimizer = SgdOptions{.momentum = 0.5};
  options.rules = {{}};
  options.rate = [](const Moment& m) { return m.iteration < 4 ? 0.01 : 0.02; };
  options.evaluate_every = 2, options.epochs = 4;
  Trainer trainer(task, options);
  BatchStream<Line::Batch> stream(points());
  // By hand: loss (w - 2)^2 x^2 + w^2.
  double w = 0.5, momentum = 0, fits = 0, sizes = 0;
  for (i64 n = 0; n < 3; ++n) {
    const double x = static_cast<double>(n + 1);
    fits += (w - 2) * (w - 2) * x * x, sizes += w * w;
    momentum = 0.5 * momentum + 2 * (w - 2) * x * x + 2 * w;
    w -= 0.01 * momentum;
  }
  const auto first = trainer.run_epoch(stream);
  CHECK(task.model.slope.item() == Approx(w));
  CHECK(task.model.frozen.item() == 3);
  REQUIRE(first.parts.size() == 3);
  CHECK((first.parts[0].first == "fit" && first.parts[0].second == Approx(fits / 3)));
  CHECK((first.parts[1].first == "size" && first.parts[1].second == Approx(sizes / 3)));
  CHECK(first.parts[2].second == 0);
  CHECK(first.train_loss == Approx((fits + sizes) / 3));
  CHECK(first.last_lr == 0.01);
  CHECK(first.n_parameters == 1);
  CHECK((!first.test && first.figure() == -1));
  const auto second = trainer.run_epoch(stream);
  CHECK(second.last_lr == 0.02);
  CHECK(second.train_lr == Approx((0.01 + 2 * 0.02) / 3));
  REQUIRE(second.test);
  CHECK(trainer.best() == second.test->nearness);
  const File file;
  trainer.save(file.path);
  Line other;
  Trainer adam(other, {.rules = {{}}});
  CHECK(says([&] { adam.resume(file.path); }, "mean.slope"));
  Trainer again(other, options);
  again.resume(file.path);
  CHECK(again.run_epoch(stream).train_loss == trainer.run_epoch(stream).train_loss);
  Line steep;
  steep.steepest = 0;
  Trainer diverging(steep, options);
  CHECK(
      says([&] { diverging.run(stream); }, "testing after epoch 2: the line is too steep; where"));
}

namespace {

// The distance of a line from points, of which the third batch of each epoch is what is said.
struct DistanceOfLine {
  using Batch = Line::Batch;
  struct Model {
    Tensor slope = parameter(Tensor::full({1, 1}, 0.5));
    template <class V>
    void fields(V& v) {
      v.parameter("slope", slope);
    }
  } model;

  Loss loss(const Batch& batch, Context& context) {
    const Scope here("line");
    const Tensor gap =
        sub(context.seen(linear(batch.images, model.slope, Tensor())), batch.targets);
    return {ppma::sqrt(mean(mul(gap, gap)))};
  }
  Line::Quality evaluate(const Testing&) { return {-model.slope.item()}; }
};
BatchPlan<Line::Batch> points_with(float x, float y, i64 batches = 5) {
  return {batches, [x, y](i64) {
            return [x, y](i64 n) {
              const float a = n == 2 ? x : static_cast<float>(n + 1);
              return Line::Batch{
                  Tensor::from<float>({a, a}, {2, 1}),
                  Tensor::from<float>({n == 2 ? y : 2 * a, n == 2 ? y : 3 * a}, {2, 1})};
            };
          }};
}

}  // namespace

TEST_CASE("a step that is not finite is skipped, counted and named", "[train]") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), huge = 3e38f;
  struct Case {
    float x, y;
    const char *what, *where;
  };
  for (const i64 accumulate : {1, 2})
    for (const Case& c : {Case{nan, 1, "loss", "what the batch holds of images"},
                          Case{huge, 1, "loss", "something behind the output of line"},
                          Case{1, nan, "loss", "something behind the output of line"},
                          Case{0, 0, "gradient's norm", "that of slope"}}) {
      INFO(c.where << ", accumulated " << accumulate);
      DistanceOfLine task, without;
      TrainOptions options;
      options.rules = {{}}, options.epochs = 2, options.ema_decay = 0.5;
      options.accumulate = accumulate;
      options.rate = [](const Moment&) { return 0.01; };
      BatchStream<Line::Batch> stream(points_with(c.x, c.y));
      std::vector<SkippedStep> skipped;
      i64 batches = 0;
      Trainer trainer(task, options);
      const auto record = trainer.run_epoch(
          stream, {.on_batch = [&](const StepReport&) { ++batches; },
                   .on_skip = [&](const SkippedStep& s) { skipped.push_back(s); }});
      CHECK(batches == 5);
      REQUIRE(skipped.size() == 1);
      CHECK((skipped[0].epoch == 0 && skipped[0].batch == (accumulate == 1 ? 3
                                                           : c.y == 0      ? 4
                                                                           : 3)));
      CHECK(skipped[0].what == c.what);
      CHECK(skipped[0].where == c.where);
      CHECK(skipped[0].in_a_row == 1);
      CHECK(record.skipped == 1);
      CHECK(is_finite(record.train_loss));
      // The same as if the step's batches were not there, in weights, moments and average.
      BatchStream<Line::Batch> fewer({accumulate == 1 ? i64{4} : i64{3}, [&](i64 epoch) {
                                        auto all = points_with(c.x, c.y).of_epoch(epoch);
                                        return [all, accumulate](i64 n) {
                                          return all(n < 2 ? n : n + accumulate);
                                        };
                                      }});
      Trainer clean(without, options);
      CHECK(clean.run_epoch(fewer).skipped == 0);
      CHECK(values(trainer.weights()) == values(clean.weights()));
      CHECK(values(trainer.average()) == values(clean.average()));
      CHECK(values(trainer.optimizer().state()) == values(clean.optimizer().state()));
    }
}

TEST_CASE("five steps in a row that are not finite, or all of an epoch, end the training",
          "[train]") {
  Toy model;
  model.second.data<float>()[0] = std::numeric_limits<float>::infinity();
  i64 skipped = 0;
  ToyTrainer trainer(model, options_for(2));
  CHECK(says([&] { trainer.run({.on_skip = [&](const SkippedStep&) { ++skipped; }}); },
             "epoch 1, batch 5: the loss is "));
  CHECK(skipped == 5);
  // Batch norm has not moved to what is not finite, nor twice where a pass was made again.
  CHECK(all_finite(model.mean));
  CHECK(all_finite(model.variance));
  DistanceOfLine task;
  task.model.slope.data<float>()[0] = std::numeric_limits<float>::infinity();
  Trainer few(task, {.rate = [](const Moment&) { return 0.01; }});
  BatchStream<Line::Batch> stream(points_with(1, 1, 3));
  CHECK(says([&] { few.run(stream); }, "none of the 3 steps of epoch 1"));
}

TEST_CASE("weights that are not finite are not saved, and not resumed", "[train]") {
  Toy model;
  ToyTrainer trainer(model, options_for(2));
  const File file;
  trainer->save(file.path);
  const std::vector<u8> good = read_file(file.path);
  Safetensors bad = read_safetensors(file.path);
  model.second.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(says([&] { trainer->save(file.path); },
             "second.weight holds values that are NaN or infinite"));
  CHECK(read_file(file.path) == good);
  for (auto& [name, tensor] : bad.tensors)
    if (name.starts_with("optimizer.square.") && tensor.dtype() == DType::f32)
      tensor.data<float>()[0] = std::numeric_limits<float>::infinity();
  write_safetensors(file.path, bad.tensors, bad.metadata);
  CHECK(says([&] { trainer->resume(file.path); }, "optimizer.square."));
  for (const char* key : {"epoch", "iteration", "best", "ema_updates", "seed"}) {
    Safetensors wrong = parse_safetensors(good, "good");
    wrong.metadata[key] = "x";
    write_safetensors(file.path, wrong.tensors, wrong.metadata);
    CHECK(says([&] { trainer->resume(file.path); }, std::string(key) == "seed"
                                                        ? "was trained with seed x"
                                                        : std::string("its ") + key + " is not a"));
  }
}

namespace {

// The classes' logits are the first pixels.
struct FirstPixels {
  Tensor forward(const Tensor& images) const {
    const i64 B = images.dim(0), pixels = images.numel() / B;
    Tensor logits = Tensor::empty({B, 10});
    for (i64 b = 0; b < B; ++b)
      std::copy_n(images.data<float>() + b * pixels, 10, logits.data<float>() + b * 10);
    return logits;
  }
};

}  // namespace

TEST_CASE("an evaluation says what was said of each image, with all processes' parts", "[train]") {
  const FirstPixels model;
  const auto stream_of = [](const BatchPart& part) {
    ImageLoading loading;
    loading.batch = 8, loading.shuffle = loading.drop_last = false, loading.part = part;
    return image_batches(shapes({.height = 32, .width = 32, .images = 21, .split = Split::test}),
                         loading);
  };
  BatchStream<Batch> whole(stream_of({}), {.workers = 0});
  std::vector<Prediction> said{{99, 0, 0, 1, 0, 0}};  // of before
  const Evaluation e = evaluate(model, whole, {}, &said);
  REQUIRE(said.size() == 21);
  const Confusion confusion(10, said);
  CHECK(std::abs(100 * confusion.top1() - e.acc1) < 1e-9);
  CHECK(std::abs(100 * confusion.top5() - e.acc5) < 1e-9);

  // Two processes: a sum waits for both.
  std::barrier<> both(2);
  std::array<Tensor*, 2> parts{};
  std::array<std::vector<Prediction>, 2> gathered;
  std::array<double, 2> accuracies{};
  const auto process = [&](i64 rank) {
    Communicator among{.rank = rank, .size = 2};
    among.all_reduce_sum = [&, rank](Tensor& t) {
      parts[static_cast<std::size_t>(rank)] = &t;
      both.arrive_and_wait();
      Tensor sum = Tensor::empty(t.shape(), t.dtype());
      for (i64 i = 0; i < t.numel(); ++i)
        sum.data<double>()[i] = parts[0]->data<double>()[i] + parts[1]->data<double>()[i];
      both.arrive_and_wait();
      t = sum;
    };
    BatchStream<Batch> test(stream_of({rank, 2}), {.workers = 0});
    Testing how;
    how.among = &among;
    accuracies[static_cast<std::size_t>(rank)] =
        evaluate(model, test, how, &gathered[static_cast<std::size_t>(rank)]).acc1;
  };
  std::thread other([&] { process(1); });
  process(0);
  other.join();
  for (const double acc1 : accuracies) CHECK(acc1 == e.acc1);
  for (const std::vector<Prediction>& g : gathered) {
    REQUIRE(g.size() == 21);
    for (std::size_t i = 0; i < g.size(); ++i) {
      CHECK(g[i].sample == static_cast<i64>(i));
      CHECK(g[i].sample == said[i].sample);
      CHECK(g[i].predicted == said[i].predicted);
      CHECK(g[i].place == said[i].place);
      CHECK(g[i].confidence == said[i].confidence);
    }
  }
}

TEST_CASE("the log: one JSON object a line", "[train]") {
  const File file;
  CHECK(read_log(file.path).empty());
  ClassifierRecord r;
  r.n_parameters = 14335272;
  r.train_lr = 1e-6;
  r.train_loss = 6.9142;
  r.test = Evaluation{6.5, 0.252, 1.5, 50000};
  r.test_ema = Evaluation{6.9, 0.1, 0.5, 50000};
  r.seconds = 2.5, r.data_seconds = 0.5, r.skipped = 3;
  CHECK(to_json(r) ==
        "{\"epoch\":0,\"n_parameters\":14335272,\"train_lr\":1e-06,\"train_loss\":6.9142,\"test_"
        "loss\":6.5,"
        "\"test_acc1\":0.252,\"test_acc5\":1.5,\"test_ema_loss\":6.9,\"test_ema_acc1\":0.1,\"test_"
        "ema_acc5\":0.5,"
        "\"skipped_steps\":3,\"data_seconds\":0.5,\"seconds\":2.5}");
  std::string lines;
  for (r.epoch = 0; r.epoch < 2; ++r.epoch) lines += to_json(r) + "\n";
  r.test_ema.reset();
  write_file(file.path, lines + to_json(r) + "\n");
  const auto records = read_log(file.path);
  REQUIRE(records.size() == 3);
  CHECK(records[1].epoch == 1);
  CHECK(records[1].test_ema->acc1 == 0.1);
  CHECK((records[1].skipped == 3 && records[1].data_seconds == 0.5));
  CHECK(records[1].n_parameters == 14335272);
  CHECK(records[2].test->acc1 == 0.252);
  CHECK(!records[2].test_ema);
  write_file(file.path, std::string_view("{\"epoch\": 0}\nnonsense\n"));
  CHECK(says([&] { read_log(file.path); }, "line 2 is not a JSON object"));
}
