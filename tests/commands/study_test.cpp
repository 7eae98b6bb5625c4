// Studies called from a program: the same files and figures as the tool's.

#include "commands/help.hpp"
#include "ppma/commands/ablate.hpp"
#include "ppma/commands/compare.hpp"
#include "ppma/commands/sweep.hpp"

using namespace commands_test;
using io_test::Contains;

namespace {

struct HeardStudy : Kept<StudyObserver> {
  std::vector<std::size_t> runs{};
  std::size_t says_rows = 0, measured = 0;
  int stopped = 0;  // as the observer of a run may have it
  void run(std::size_t number, std::size_t all) override {
    if (number < all) runs.push_back(number);
  }
  TrainedRun train(const ClassifierTraining& o, const ClassifierData& images) override {
    TrainedRun r = StudyObserver::train(o, images);
    r.stopped = stopped;
    return r;
  }
  using StudyObserver::train;
  void measure(std::vector<CostedNetwork>& networks, i64 batch, i64 size,
               const ComputeOptions& compute) override {
    measured = networks.size();
    for (CostedNetwork& n : networks)
      n.costs.training = static_cast<double>(batch), n.costs.inference = static_cast<double>(size);
    CHECK(compute.device == "cpu");
  }
  void says(const Study&, const StudySays& s) override { says_rows = s.table.rows.size(); }
};

ClassifierTraining tiny(const Folder& folder, const std::string& out) {
  auto o = small_training<ClassifierTraining>(folder, out);
  o.network.config = small_network(folder);
  o.data.images = 16, o.data.test_images = 8, o.data.size = 32;
  return o;
}

std::string tiny_arguments(const Folder& folder, const std::string& out) {
  return " --images 16 --test-images 8 --size 32 --batch 8 --epochs 1 --config " +
         folder / "net.json" + " --out " + folder / out;
}

}  // namespace

TEST_CASE("commands: a sweep from a program, in parts, and a comparison of its runs",
          "[commands][tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const ClassifierTraining base = tiny(folder, "mine");
  const std::vector<SweepAxis> axes{SweepAxis::of("lr=1e-3,5e-3")};
  HeardStudy heard;
  heard.stopped = 1;  // ends after the first run
  const MadeSweep half = sweep(axes, {.seeds = 1}, base, heard);
  CHECK((heard.runs == std::vector<std::size_t>{0} && half.says.missing.size() == 2));
  heard.stopped = 0;
  const MadeSweep made = sweep(axes, {.seeds = 1}, base, heard);
  CHECK(heard.runs == std::vector<std::size_t>{0, 1});  // the first is not trained again
  CHECK((made.says.missing.empty() && heard.says_rows == 2 && made.best));
  CHECK(made.files.front() == folder / "mine/sweep.json");
  const auto tools = run("sweep --over lr=1e-3,5e-3" + tiny_arguments(folder, "tools"));
  INFO(tools.err);
  REQUIRE(tools.code == 0);
  CHECK(read_file(folder / "mine/sweep.json") == read_file(folder / "tools/sweep.json"));
  CHECK_THAT(tools.out, Contains(made.says.table.text()));

  const std::string one = folder / "mine/lr-1e-3-0", other = folder / "mine/lr-5e-3-0";
  const RunComparison r = compare_runs({one, other});
  CHECK((r.groups.size() == 2 && r.keys == std::vector<std::string>{"lr"}));
  const auto compared = run("compare " + one + " " + other + " --out " + folder / "c.html");
  CHECK_THAT(compared.out, Contains(r.differences.text() + "\n" + r.table.text()));
  CHECK(r.page == tool_test::text_of(folder / "c.html"));
  CHECK_THAT(thrown([&] { compare_runs({folder / "mine"}); }), Contains("is no run's folder"));

  CHECK_THAT(thrown([&] {
               sweep({axes[0], axes[0]}, {}, base);
             }),
             Contains("`over`: lr is there twice"));
  CHECK_THAT(thrown([&] { sweep({}, {}, base); }), Contains("one option or two, not 0"));
  CHECK_THAT(thrown([&] { sweep(axes, {.part = 2, .parts = 2}, base); }),
             Contains("`part` 2/2: must be K/N"));
  CHECK_THAT(thrown([&] { sweep({SweepAxis::of("colour=red")}, {}, base); }),
             Contains("`over` colour=red: train `task` classify has no such option"));
}

TEST_CASE("commands: an ablation from a program", "[commands][tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  AblateOptions o;
  o.masks = {"none", "polyline"}, o.trials.seeds = 1, o.no_bench = true;
  const MadeStudy made = ablate(o, tiny(folder, "mine"));
  CHECK((made.study.variants.size() == 2 && made.says.costs.rows.empty()));
  const auto tools =
      run("ablate --masks none,polyline --seeds 1 --no-bench" + tiny_arguments(folder, "tools"));
  INFO(tools.err);
  REQUIRE(tools.code == 0);
  CHECK(read_file(folder / "mine/ablation.json") == read_file(folder / "tools/ablation.json"));
  CHECK_THAT(tools.out, Contains(made.says.table.text()));

  o.no_bench = false;
  HeardStudy heard;
  const MadeStudy costed = ablate(o, tiny(folder, "mine"), heard);
  CHECK((heard.runs.empty() && heard.measured == 2 && costed.says.costs.rows.size() == 2));
  CHECK((costed.study.variants[1].costs.training == 8 &&
         costed.study.variants[1].costs.inference == 32));
  HeardStudy again;
  ablate(o, tiny(folder, "mine"), again);
  CHECK(again.measured == 0);  // what was written down is taken

  o.structures = {"round"};
  CHECK_THAT(thrown([&] { ablate(o, tiny(folder, "mine")); }),
             Contains("`structures` round: must be whole, criss_cross or linear"));
}
