// Commands about networks and their files, called from a program: what the tool prints of the same.

#include "commands/help.hpp"
#include "distance.hpp"
#include "ppma/commands/bench.hpp"
#include "ppma/commands/costs.hpp"
#include "ppma/commands/info.hpp"
#include "ppma/commands/run_network.hpp"
#include "ppma/commands/summarize.hpp"
#include "ppma/commands/timing.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/models/config_json.hpp"

namespace measure_test {

using namespace commands_test;
using io_test::Contains;

namespace {

std::string file_of_names(const Folder& folder) {
  const std::string path = folder / "a.safetensors";
  const float hole = std::numeric_limits<float>::quiet_NaN();
  write_safetensors(path,
                    {{"b", Tensor::from<float>({1, hole}, {2})},
                     {"a", Tensor::zeros({3, 4}, DType::f64)},
                     {"n", Tensor::zeros({1}, DType::int64)}},
                    {{"said", "so"}});
  return path;
}

}  // namespace

TEST_CASE("commands: what is in a file, from a program", "[commands][tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const InfoOptions o{.file = file_of_names(folder)};
  const WeightsInfo mine = weights_info(o);
  const json theirs = json::parse(run("info --json " + o.file).out);
  CHECK(theirs["tensors"] == mine.tensors.size());
  CHECK((theirs["elements"] == mine.elements && mine.elements == 15));
  CHECK((theirs["bytes"] == mine.bytes && mine.bytes == 2 * 4 + 12 * 8 + 8));
  for (std::size_t k = 0; k < 3; ++k) CHECK(theirs["entries"][k]["name"] == mine.tensors[k].first);
  CHECK((mine.metadata.at("said") == "so" && mine.left_out.empty()));
  REQUIRE(mine.not_finite.size() == 1);
  CHECK((mine.not_finite[0].name == "b" && mine.not_finite[0].values == 1));
  CHECK_THAT(run("info " + o.file).out, Contains("b: 1 of its values are inf or NaN"));
  CHECK_THAT(thrown([] { weights_info({}); }), Contains("info: needs `file`"));
  CHECK_THAT(thrown([&] { weights_info({.file = folder / "no.pth"}); }), Contains("no.pth"));
}

TEST_CASE("commands: what a network costs, from a program", "[commands][tool]") {
  NEEDS_TOOL();
  const Folder folder;
  SummaryOptions o;
  o.network.config = small_network(folder), o.size = 48, o.batch = 2;
  const NetworkSummary s = summarize_network(o);
  const json theirs =
      json::parse(run("summary --json --size 48 --batch 2 --config " + o.network.config).out);
  CHECK(theirs["macs"] == s.layers.macs());
  CHECK(theirs["parameters"] == s.layers.parameters());
  REQUIRE((s.inference && s.training));
  CHECK(theirs["memory"]["inference"]["planned_bytes"] == s.inference->planned);
  CHECK(theirs["memory"]["training_step"]["planned_bytes"] == s.training->planned);
  CHECK((s.inference->measured == 0 && s.training->measured == 0));
  o.measure = true;
  const NetworkSummary m = summarize_network(o);
  CHECK((m.inference->measured > 0 && m.training->measured > m.inference->measured));
  CHECK(m.layers.macs() == s.layers.macs());

  o.network.mask = "hilbert";
  CHECK_THAT(thrown([&] { summarize_network(o); }),
             Contains("summary `measure`: attention with mask hilbert"));
  o.measure = false;
  CHECK_FALSE(summarize_network(o).inference);
  o.batch = 0;
  CHECK_THAT(thrown([&] { summarize_network(o); }), Contains("`batch` is 0; it must be 1 to"));
  o.batch = 1, o.size = 8;
  CHECK_THAT(thrown([&] { summarize_network(o); }), Contains("`size` is 8; it must be 0, or 32"));
  o = {}, o.network.model = "vit_nano", o.measure = true;
  CHECK_THAT(thrown([&] { summarize_network(o); }), Contains("the memory of vit_nano"));
}

TEST_CASE("commands: a network on given tensors, from a program", "[commands][tool]") {
  NEEDS_TOOL();
  const Folder folder;
  Rng rng(1);
  const Tensor images = Tensor::randn({2, 3, 32, 32}, rng);
  write_safetensors(folder / "in",
                    {{"input", images}, {"target", Tensor::zeros({2}, DType::int64)}}, {});
  RunOptions o;
  o.network.config = small_network(folder), o.input = folder / "in";
  const std::string common =
      "run --config " + o.network.config + " --input " + o.input + " --output " + folder / "theirs";
  for (const bool train : {false, true}) {
    o.train = train, o.output = train ? folder / "mine" : "";
    const TensorMap mine = run_network(o);
    REQUIRE(run(common + (train ? " --train" : "")).code == 0);
    const TensorMap theirs = read_safetensors(folder / "theirs").tensors;
    REQUIRE((mine.size() == theirs.size() && mine.size() >= 6));
    for (std::size_t k = 0; k < mine.size(); ++k) {
      INFO(mine[k].first);
      CHECK(mine[k].first == theirs[k].first);
      CHECK(distance(mine[k].second.viewed_as(theirs[k].second.shape()), theirs[k].second) == 0);
    }
    CHECK(std::filesystem::exists(folder / "mine") == train);
  }
  CHECK(read_file(folder / "mine") == read_file(folder / "theirs"));
  // The same as without the command.
  Ppma model(config_from_text(read_text(o.network.config), "config"));
  o.train = false, o.output.clear();
  const TensorMap out = run_network(o);
  const NoGrad not_recorded;
  CHECK(distance(*find(out, "logits"), model.forward(images)) < 1e-5);

  o.input.clear();
  CHECK_THAT(thrown([&] { run_network(o); }), Contains("run: needs `input`"));
  o.input = folder / "in", o.task = "segment", o.train = true;
  CHECK_THAT(thrown([&] { run_network(o); }),
             Contains("run `task` segment: runs inference; leave out `train`"));
  o.task = "dance";
  CHECK_THAT(thrown([&] { run_network(o); }), Contains("`task` dance: must be classify"));
  o.task = "classify", o.network = {}, o.network.model = "vit_nano";
  CHECK_THAT(thrown([&] { run_network(o); }), Contains("vit_nano is a plain transformer"));
}

TEST_CASE("commands: time and memory of a pass, from a program", "[commands][tool]") {
  NEEDS_TOOL();
  const Folder folder;
  BenchOptions o;
  o.network.config = small_network(folder);
  o.batch = 2, o.size = 64, o.width = 32, o.repeat = 3, o.warmup = 0;
  const NetworkBench b = bench_network(o);
  const Ppma model(config_from_text(read_text(o.network.config), "config"));
  CHECK((b.network == model.config.name && b.mask == "polyline"));
  CHECK((b.images == 2 && b.height == 64 && b.width == 32 && b.processes == 1 && b.rank == 0));
  CHECK((b.timing.least > 0 && b.timing.ms >= b.timing.least && b.floor > 0));
  CHECK(b.images_per_second() == Approx(2000 / b.timing.ms));
  SummaryOptions s;
  s.network = o.network, s.size = 64;
  o.width = 0, o.train = true;
  const NetworkBench trained = bench_network(o);
  CHECK(trained.macs == summarize_network(s).layers.macs());
  CHECK((trained.width == 64 && 2 * b.macs < trained.macs));  // and the head's
  CHECK(trained.timing.peak > b.timing.peak);
  CHECK_FALSE(trained.timing.captured);
  const json theirs = json::parse(
      run("bench --json --batch 2 --size 64 --repeat 1 --train --config " + o.network.config).out);
  CHECK(theirs["peak_tensors_MiB"].get<double>() == Approx(mib(trained.timing.peak)).margin(0.3));

  o = {.network = {.model = "ppma_nano"}, .task = "segment", .batch = 1, .size = 64, .repeat = 1};
  const NetworkBench segmentor = bench_network(o);
  CHECK((segmentor.network == "upernet ppma_nano" && segmentor.floor == 0 && segmentor.macs > 0));
  o.task = "detect";
  const NetworkBench detector = bench_network(o);
  CHECK(detector.network == "mask_rcnn ppma_nano");
  CHECK((detector.macs == segmentor.macs && detector.objects >= 0));

  const auto wrong = [](BenchOptions is, const char* message) {
    CHECK_THAT(thrown([&] { bench_network(is); }), Contains(message));
  };
  wrong({.task = "sing"}, "`task` sing: must be classify, segment or detect");
  wrong({.batch = 0}, "`batch` is 0; it must be 1 to 65536");
  wrong({.size = 8}, "`size` is 8; it must be 0, or 32 to 16384");
  wrong({.width = -1}, "`width` is -1; it must be 0");
  wrong({.repeat = 0}, "`repeat` is 0, `warmup` 3");
  wrong({.checkpoint_blocks = true}, "`checkpoint_blocks` is for `train`");
  wrong({.heads_only = true}, "`heads_only` is for `task` detect");
  wrong({.task = "detect", .train = true}, "bench `task` detect: times inference");
  wrong({.task = "detect", .size = 50}, "multiples of 32, not 50 x 50");
}

TEST_CASE("commands: networks side by side, from a program", "[commands]") {
  const Folder folder;
  std::vector<CostedNetwork> networks{{"classify", small_network(folder)}};
  measure_costs(networks, 2, 32, {});
  const NetworkCosts& c = networks[0].costs;
  SummaryOptions s;
  s.network.config = networks[0].config, s.size = 32;
  CHECK(c.macs == summarize_network(s).layers.macs());
  CHECK((c.known() && c.inference > 0 && c.training_peak > c.inference_peak));
  CHECK_THAT(thrown([&] { measure_costs(networks, 0, 32, {}); }),
             Contains("costs: `batch` is 0, `size` 32; they must be at least 1 and 32"));
  networks[0].task = "detect";
  CHECK_THAT(thrown([&] { measure_costs(networks, 2, 32, {}); }),
             Contains("a network with `task` detect costs is not measured"));
  CHECK((median({3, 1, 2}) == 2 && median({4, 1}) == 2.5));
  CHECK_THAT(thrown([] { median({}); }), Contains("median: of no numbers"));
}

}  // namespace measure_test
