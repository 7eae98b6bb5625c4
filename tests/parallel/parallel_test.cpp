// Several processes train as one: this program starts itself again, once a rank, as a launcher
// would.

#include "ppma/core/parallel.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "catch.hpp"
#include "free_port.hpp"
#include "io/help.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/heads/segmentor_json.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/nn/checkpoint.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/parallel/gradients.hpp"
#include "ppma/parallel/tcp.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/train/segmentation.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"
#include "train/toy.hpp"

using namespace ppma;
using namespace toy;

extern char** environ;

namespace {

// Batches of which this process gets its part.
BatchPlan<Batch> part_of(BatchPlan<Batch> whole, const BatchPart& part) {
  whole.of_epoch = [=, all = whole.of_epoch](i64 epoch) {
    return [=, make = all(epoch)](i64 number) {
      Batch b = make(number);
      const i64 n = b.images.dim(0), low = part.begin(n), high = part.end(n);
      if (low == high) return Batch{Tensor(), Tensor::empty({0}, DType::int64)};
      b.images = narrow(b.images, 0, low, high - low);
      b.targets = narrow(b.targets, 0, low, high - low);
      return b;
    };
  };
  return whole;
}

// One rank: this program, with the launcher's variables.
struct Rank {
  pid_t pid = -1;
  std::string out;

  Rank(const char* test, i64 rank, i64 size, i64 port, const io_test::Folder& folder,
       const std::string& more = "")
      : out(folder / str("rank", rank)) {
    std::vector<std::string> variables{str("RANK=", rank),        str("WORLD_SIZE=", size),
                                       str("MASTER_PORT=", port), "MASTER_ADDR=127.0.0.1",
                                       "OMP_NUM_THREADS=1",       "PPMA_TEST_OUT=" + out};
    if (!more.empty()) variables.push_back(more);
    std::vector<char*> env, arguments;
    for (std::string& v : variables) env.push_back(v.data());
    for (char** e = environ; *e != nullptr; ++e) env.push_back(*e);
    env.push_back(nullptr);
    std::string self = "/proc/self/exe", name = test;
    arguments = {self.data(), name.data(), nullptr};
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    REQUIRE(::posix_spawn(&pid, self.c_str(), &quiet, nullptr, arguments.data(), env.data()) == 0);
    posix_spawn_file_actions_destroy(&quiet);
  }
  // What it wrote: "nothing" if it ended well, else its error.
  std::string end(double seconds = 300) const {
    for (double waited = 0; waited < seconds; waited += 0.02) {
      int status = 0;
      if (::waitpid(pid, &status, WNOHANG) == pid) {
        if (WIFSIGNALED(status)) return str("signal ", WTERMSIG(status));
        const std::vector<u8> bytes = read_file(out + ".txt");
        return {bytes.begin(), bytes.end()};
      }
      ::usleep(20000);
    }
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return "did not end";
  }
};

// Runs one rank's work; its error goes to a file.
template <class F>
void as_rank(F work) {
  const char* out = std::getenv("PPMA_TEST_OUT");
  if (out == nullptr) return;
  const std::string why = thrown([&] { work(*launch_from_environment(), std::string(out)); });
  write_file(std::string(out) + ".txt", std::string_view(why));
}

// Without the bias in front of batch norm: its gradient is rounding alone, which AdamW would make
// into steps.
Toy network() {
  Toy model;
  model.first_bias = Tensor();
  return model;
}

void append(std::vector<float>& all, const ClassifierRecord& r) {
  for (const double v : {r.train_loss, r.test->loss, r.test->acc1, r.test_ema->acc1,
                         static_cast<double>(r.test->images)})
    all.push_back(static_cast<float>(v));
}

// What untrained networks do on sets of 4 images.
TensorMap test_figures(const Testing& how) {
  SegmentorConfig<UperNet> s = segmentor_nano<UperNet>(11);
  s.backbone.depths = {1, 1, 1, 1};
  Segmentor<UperNet> segmentor(s, 1);
  const ShapesOptions small{.height = 64, .width = 64, .images = 4, .split = Split::test};
  SegmentationTask pixels(segmentor, shapes_segmentation(small), {.longer = 64, .shorter = 64});
  const SegmentationEvaluation p = pixels.evaluate(how);
  MaskRcnnConfig d = mask_rcnn_nano(figure_count, true);
  d.backbone.depths = {1, 1, 1, 1};
  MaskRcnn detector(d, 1);
  const DetectionSet set = shapes_set(small);
  DetectionLoading loading;
  loading.longer = 64, loading.shorter = {64};
  DetectionTask objects(detector, set, std::make_shared<const CocoTruth>(truth_of(set)), loading);
  const DetectionEvaluation o = objects.evaluate(how);
  const auto tensor = [](const std::vector<double>& v) {
    return Tensor::from(v, {static_cast<i64>(v.size())});
  };
  return {{"pixels", tensor({p.all_accuracy, p.mean_accuracy})},
          {"classes", tensor({o.boxes.class_ap})},
          {"boxes", tensor({o.boxes.figures.begin(), o.boxes.figures.end()})},
          {"masks", tensor({o.masks->figures.begin(), o.masks->figures.end()})}};
}

TrainOptions plain(i64 epochs) {
  TrainOptions options = options_for(epochs);
  options.clip = 1;
  options.accumulate = 2;
  return options;
}

void expect_equal(const TensorMap& got, const TensorMap& want, double tolerance) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO(want[i].first);
    const auto a = got[i].second.to_vector<double>(), b = want[i].second.to_vector<double>();
    double gap = 0, size = 0;
    for (std::size_t k = 0; k < a.size(); ++k)
      gap = std::max(gap, std::abs(a[k] - b[k])), size = std::max(size, std::abs(b[k]));
    CHECK(gap <= tolerance * std::max(size, 1.0));
  }
}

struct Variable {
  std::string name;
  Variable(const char* n, const char* value) : name(n) { ::setenv(n, value, 1); }
  ~Variable() { ::unsetenv(name.c_str()); }
};

}  // namespace

// ---- what a rank does ----

TEST_CASE("rank: trains", "[.]") {
  as_rank([](const Launch& launch, const std::string& out) {
    Toy model = network();
    if (launch.rank != 0) model.first.data<float>()[0] = 99;  // rank 0's weights are everybody's
    TrainOptions options = plain(3);
    options.processes = connect_tcp(launch, 2);
    const BatchPart part{launch.rank, launch.size};
    ToyTrainer trainer(model, options, part_of(toy_batches(12), part),
                       part_of(toy_batches(16, 49), part));
    std::vector<float> losses;
    trainer.run({.on_epoch = [&](const ClassifierRecord& r, bool) { append(losses, r); }});
    TensorMap all = trainer->weights();
    all.emplace_back("record", Tensor::from(losses, {static_cast<i64>(losses.size())}));
    write_safetensors(out, all, {});
  });
}

TEST_CASE("rank: tests", "[.]") {
  as_rank([](const Launch& launch, const std::string& out) {
    const std::vector<Communicator> all = connect_tcp(launch, 1);
    Testing how;
    how.among = all.data();
    write_safetensors(out, test_figures(how), {});
  });
}

TEST_CASE("rank: dies", "[.]") {
  as_rank([](const Launch& launch, const std::string&) {
    const std::vector<Communicator> c = connect_tcp(launch, 2);
    Toy model;
    std::vector<Tensor> parameters;
    for (const Field& f : named_parameters(model)) parameters.push_back(f.tensor);
    GradientAverage average(c[1], parameters, 64);
    c[0].barrier();
    if (launch.rank == launch.size - 1) ::raise(SIGKILL);
    if (std::getenv("PPMA_TEST_BUSY") != nullptr) {
      if (launch.rank == 1) ::sleep(3);  // computes while somebody else is gone
      c[0].barrier();
    }
    average.finish();
  });
}

TEST_CASE("rank: connects", "[.]") {
  as_rank([](const Launch& launch, const std::string&) { connect_tcp(launch, 1, 5)[0].barrier(); });
}

TEST_CASE("rank: another step", "[.]") {
  as_rank([](const Launch& launch, const std::string&) {
    Tensor t = Tensor::ones({launch.rank == 0 ? 3 : 4});
    connect_tcp(launch)[0].all_reduce_sum(t);
  });
}

// ---- what all do together ----

TEST_CASE("processes train as one with the whole batch", "[parallel]") {
  Toy model = network();
  ToyTrainer alone(model, plain(3), toy_batches(12), toy_batches(16, 49));
  std::vector<float> record;
  alone.run({.on_epoch = [&](const ClassifierRecord& r, bool) { append(record, r); }});
  TensorMap want = alone->weights();
  want.emplace_back("record", Tensor::from(record, {static_cast<i64>(record.size())}));
  for (const i64 size : {2, 3}) {
    const io_test::Folder folder;
    const i64 port = free_port();
    std::vector<Rank> ranks;
    for (i64 r = 0; r < size; ++r) ranks.emplace_back("rank: trains", r, size, port, folder);
    for (const Rank& r : ranks) CHECK(r.end() == "nothing");
    for (const Rank& r : ranks) expect_equal(read_safetensors(r.out).tensors, want, 2e-5);
    // sums of parts: it would be chance
    CHECK(values(read_safetensors(ranks[0].out).tensors) != values(want));
    for (const Rank& r : ranks) {  // running statistics and all: the same bits
      CHECK(values(read_safetensors(r.out).tensors) ==
            values(read_safetensors(ranks[0].out).tensors));
    }
  }
}

TEST_CASE("processes that share a test set find what one finds", "[parallel]") {
  if (brief()) PPMA_SKIP("networks that other tests run under the sanitizers");
  const auto want = values(test_figures({}));
  REQUIRE(want[0][0] > 0);                                       // pixels
  CHECK(*std::max_element(want[2].begin(), want[2].end()) > 0);  // boxes
  // Each process tests two networks of its own: three of them take long under a sanitizer.
  for (const i64 size : sanitized() ? std::vector<i64>{2} : std::vector<i64>{2, 3}) {
    const io_test::Folder folder;
    const i64 port = free_port();
    std::vector<Rank> ranks;
    for (i64 r = 0; r < size; ++r) ranks.emplace_back("rank: tests", r, size, port, folder);
    for (const Rank& r : ranks) CHECK(r.end() == "nothing");
    for (const Rank& r : ranks) CHECK(values(read_safetensors(r.out).tensors) == want);
  }
}

TEST_CASE("gradients leave while backward computes, and are the mean", "[parallel]") {
  Toy model(false);
  std::vector<Tensor> parameters;
  for (const Field& f : named_parameters(model)) parameters.push_back(f.tensor);
  Communicator twice;  // as if another process had the same gradients
  twice.size = 2;
  i64 calls = 0;
  twice.all_reduce_sum = [&](Tensor& t) {
    ++calls;
    t.copy_from(add(t, t));
  };
  twice.abort = [] {};
  GradientAverage average(twice, parameters, 64);
  CHECK(average.buckets() == 3);
  const Batch batch = toy_batches(8).of_epoch(0)(0);
  Context context;
  const auto loss = [&] {
    return cross_entropy(model.forward(batch.images, context), batch.targets);
  };
  loss().backward();
  TensorMap want;
  for (Tensor& p : parameters) want.emplace_back("", p.grad().clone()), p.zero_grad();
  average.backward(loss());
  CHECK(average.sent_early() == 3);
  CHECK(calls == 3);
  for (std::size_t i = 0; i < want.size(); ++i)
    CHECK(parameters[i].grad().to_vector<double>() == want[i].second.to_vector<double>());

  for (Tensor& p : parameters) p.zero_grad();
  average.finish();
  for (const Tensor& p : parameters) CHECK(!p.grad().defined());  // nobody's stays nobody's
}

TEST_CASE("a leaf that is used twice is complete after both", "[parallel]") {
  Tensor a = Tensor::ones({2}, DType::f64), unused = Tensor::ones({2}, DType::f64);
  a.requires_grad(true), unused.requires_grad(true);
  std::vector<double> seen;
  const LeafListener listener{[&](const GradInfo* leaf) {
                                REQUIRE(leaf == a.info().get());
                                return true;
                              },
                              [&] { seen.push_back(a.grad().to_vector<double>()[0]); }};
  backward(sum(add(mul(a, a), scale(a, 3))), Tensor(), &listener);
  CHECK(seen == std::vector<double>{5});
}

TEST_CASE("leaves that two checkpoints add to are complete after both, and nobody hears of them",
          "[parallel]") {
  Tensor x = Tensor::ones({2}), weight = Tensor::full({2}, 3);
  x.requires_grad(true), weight.requires_grad(true);
  const auto block = [weight](const Tensor& in, Context&) { return mul(in, weight); };
  Context context{true, Rng(1)};
  const Tensor y = checkpoint(block, checkpoint(block, x, context), context);
  i64 heard = 0;
  const LeafListener listener{[&heard](const GradInfo*) { return ++heard > 0; }, [] {}};
  backward(sum(y), Tensor(), &listener);
  CHECK(heard == 0);
  CHECK(weight.grad().to_vector<float>() == std::vector<float>{6, 6});
}

TEST_CASE("who dies ends the others, with a reason", "[parallel]") {
  for (const char* more : {"", "PPMA_TEST_BUSY=1"}) {
    const io_test::Folder folder;
    const i64 port = free_port();
    std::vector<Rank> ranks;
    for (i64 r = 0; r < 3; ++r) ranks.emplace_back("rank: dies", r, 3, port, folder, more);
    CHECK(ranks[2].end() == "signal 9");
    CHECK_THAT(
        ranks[0].end(20),
        io_test::Contains("the connection to rank 2 has ended: that process died or gave up"));
    CHECK_THAT(ranks[1].end(20),
               io_test::Contains("parallel: rank 1: the connection to rank 2 has ended"));
  }
}

TEST_CASE("processes that do not fit together say so", "[parallel]") {
  {
    const io_test::Folder folder;
    const i64 port = free_port();
    const Rank a("rank: connects", 0, 2, port, folder), b("rank: connects", 1, 3, port, folder);
    CHECK_THAT(a.end(), io_test::Contains("rank 1 is of a group of 3, rank 0 of one of 2"));
    CHECK_THAT(b.end(), io_test::Contains("rank 1 is of a group of 3, rank 0 of one of 2"));
  }
  {
    const io_test::Folder folder;
    const i64 port = free_port();
    const Rank a("rank: connects", 0, 3, port, folder), b("rank: connects", 1, 3, port, folder);
    CHECK_THAT(a.end(), io_test::Contains("after 5 s these ranks of 3 had not come: 2"));
    CHECK_THAT(b.end(), io_test::Contains("these ranks of 3 had not come: 2"));
  }
  {
    const io_test::Folder folder;
    const i64 port = free_port();
    const Rank a("rank: another step", 0, 2, port, folder),
        b("rank: another step", 1, 2, port, folder);
    CHECK_THAT(a.end(),
               io_test::Contains("rank 1 sent message 1 of 16 bytes, rank 0 is at 1 of 12"));
    CHECK_THAT(b.end(), io_test::Contains("rank 1 sent message 1 of 16 bytes"));
  }
}

TEST_CASE("processes of one machine share its cores, unless threads were chosen", "[parallel]") {
  const int before = threads();
  share_cores(1);
  CHECK(threads() == before);
  share_cores(2);
  CHECK((threads() == std::max(before / 2, 1) || threads() == before));
  set_threads(before + 1);
  const int chosen = threads();  // without OpenMP one as before
  share_cores(2);
  CHECK(threads() == chosen);
  set_threads(before);
}

TEST_CASE("the launcher's variables", "[parallel]") {
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"})
    ::unsetenv(name);
  CHECK(!launch_from_environment());
  {
    const Variable a("OMPI_COMM_WORLD_RANK", "3"), b("OMPI_COMM_WORLD_SIZE", "4"),
        c("OMPI_COMM_WORLD_LOCAL_RANK", "1");
    const Launch l = *launch_from_environment();
    CHECK((l.rank == 3 && l.size == 4 && l.local_rank == 1 && l.host == "127.0.0.1" &&
           l.port == 29500 && l.local_size == 1));
  }
  {
    const Variable a("PMI_RANK", "5"), b("PMI_SIZE", "8"), c("MPI_LOCALRANKID", "1"),
        d("MPI_LOCALNRANKS", "4");
    const Launch l = *launch_from_environment();
    CHECK((l.rank == 5 && l.size == 8 && l.local_rank == 1 && l.local_size == 4));
  }
  const Variable rank("RANK", "2");
  CHECK_THAT(thrown([] { launch_from_environment(); }),
             io_test::Contains("RANK is set, WORLD_SIZE is not"));
  const Variable size("WORLD_SIZE", "2");
  CHECK_THAT(thrown([] { launch_from_environment(); }),
             io_test::Contains("RANK is 2; with WORLD_SIZE 2 it must be 0 to 1"));
  const Variable wrong("WORLD_SIZE", "two");
  CHECK_THAT(thrown([] { launch_from_environment(); }),
             io_test::Contains("WORLD_SIZE is \"two\", not a number"));
  const Variable right("WORLD_SIZE", "3"), port("MASTER_PORT", "70000");
  CHECK_THAT(thrown([] { launch_from_environment(); }), io_test::Contains("MASTER_PORT is 70000"));
}
