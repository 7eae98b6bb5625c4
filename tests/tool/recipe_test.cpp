// Options of training: recipes, which others count more than; optimisers, schedules, augmentations,
// shares of a set, frozen parameters.

#include <nlohmann/json.hpp>

#include "io/help.hpp"
#include "ppma/io/safetensors.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;

namespace recipe_test {

nlohmann::json options_of(const std::string& folder) {
  return nlohmann::json::parse(text_of(folder + "/train.json"));
}
bool mentions(const Result& r, const char* what) {
  INFO(r.err);
  return r.err.find(what) != std::string::npos;
}
const std::string small = " --data shapes --images 48 --test-images 16 --threads 1";

TEST_CASE("tool: a recipe's options, beside which others count more", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run";
  const Result r =
      run("train --recipe published --model ppma_nano --size 32 --batch 16 --epochs 1" + small +
          " --out '" + out + "'");
  INFO(r.err);
  REQUIRE(r.code == 0);
  const auto o = options_of(out);
  CHECK((o["epochs"] == 1 && o["batch"] == 16 && o["size"] == 32));
  CHECK((o["mixup"] == 0.8 && o["cutmix"] == 1 && o["erasing"] == 0.25 && o["rand_augment"] == 9));
  CHECK((o["repeats"] == 3 && o["ema"] == 0.9999200016 && o["ema_plain"] == true));
  CHECK((o["lr"] == 1e-3 && o["beta2"] == 0.999 && o["clip"] == 0 && o["rate_per_epoch"] == true));
  const auto log = nlohmann::json::parse(text_of(out + "/log.jsonl"));
  CHECK(log["train_lr"] == 1e-6);  // the published schedule's first epoch
  // The dense ones: their keys are those of their tasks.
  for (const std::string task : {"segment", "detect"}) {
    const std::string place = folder / task;
    const Result dense =
        run("train --recipe published-" + task + " --model ppma_nano --batch 4 --epochs 1 " +
            (task == "segment" ? "--longer 64 --shorter 64 --crop 64 " : "") + "--size 64" + small +
            " --out '" + place + "'");
    INFO(dense.err);
    REQUIRE(dense.code == 0);
    CHECK(options_of(place)["task"] == task);
    CHECK(options_of(place)["lr"] == (task == "segment" ? 6e-5 : 1e-4));
    CHECK(options_of(place)["schedule"] == (task == "segment" ? "poly" : "step"));
  }
  const std::string other = " --out '" + folder / "other" + "'";
  CHECK(mentions(run("train --recipe publishd" + other),
                 "there is no recipe \"publishd\"; there are published, "));
  CHECK(mentions(run("train --recipe finetune" + other), "is for --weights"));
  CHECK(mentions(run("train --recipe published-detect --task classify" + other),
                 "its task is detect, not classify"));
  CHECK(mentions(run("train --recipe small --config '" + out + "/train.json'" + other),
                 "leave one out"));
  CHECK(!std::filesystem::exists(folder / "other"));
}

TEST_CASE("tool: SGD, schedules, shares and frozen parameters by options", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string first = folder / "first", second = folder / "second",
                    weights = first + "/best.safetensors";
  REQUIRE(run("train --size 32 --epochs 1" + small + " --out '" + first + "'").code == 0);
  const Result r = run("train --size 32 --weights '" + weights +
                       "' --ema 0 --freeze "
                       "'patch_embed.*,*.bias' --optimizer sgd --nesterov --momentum 0.8 "
                       "--schedule step --steps 1 2 --warmup 0 --lr 0.01 --fraction 0.4 --balanced "
                       "--no-flip --rand-augment 5" +
                       small + " --epochs 3 --out '" + second + "'");
  INFO(r.err);
  REQUIRE(r.code == 0);
  const Safetensors before = read_safetensors(weights),
                    after = read_safetensors(second + "/last.safetensors");
  i64 same = 0, other = 0;
  for (const auto& [name, tensor] : before.tensors) {
    const Tensor* now = find(after.tensors, "model." + name);
    REQUIRE(now != nullptr);
    const bool frozen = (name.starts_with("patch_embed.") && name.find("running") == name.npos &&
                         name.find("tracked") == name.npos) ||
                        name.ends_with(".bias");
    const bool equal = tensor.to_vector<double>() == now->to_vector<double>();
    if (frozen) CHECK(equal);
    same += frozen, other += !frozen && !equal;
  }
  CHECK((same > 20 && other > 20));
  std::istringstream lines(text_of(second + "/log.jsonl"));
  std::vector<double> rates;
  for (std::string line; std::getline(lines, line);)
    rates.push_back(nlohmann::json::parse(line)["train_lr"]);
  REQUIRE(rates.size() == 3);
  CHECK((rates[0] == Approx(0.01) && rates[1] == Approx(0.001) && rates[2] == Approx(0.0001)));
  CHECK(r.out.find(" 20 training and 16 test images") != std::string::npos);  // 2 of each class
  const std::string out = " --out '" + folder / "other" + "'";
  CHECK(
      mentions(run("train --freeze nothing.*" + small + out), "--freeze nothing.*: no parameter"));
  CHECK(mentions(run("train --optimizer adam" + out), "must be adamw or sgd"));
  CHECK(mentions(run("train --task segment --schedule linear" + out), "must be cosine, poly,"));
  CHECK(mentions(run("train --nesterov" + out), "--nesterov is for --optimizer sgd"));
  CHECK(mentions(run("train --balanced --repeats 3" + out), "leave one out"));
}

TEST_CASE("tool: a plain transformer is trained, goes on, is tested and compared", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run", best = " --weights '" + out + "/best.safetensors'";
  const Result r =
      run("train --model vit_nano --mask polyline --size 32 --epochs 2 --stop-after 1" + small +
          " --out '" + out + "'");
  INFO(r.err);
  REQUIRE(r.code == 0);
  CHECK(r.out.starts_with("vit_nano, mask polyline, "));
  CHECK(run("train --resume '" + out + "'").code == 0);
  const auto network = nlohmann::json::parse(text_of(out + "/config.json"));
  CHECK((network["network"] == "vit" && network["image_size"] == 32 && network["width"] == 64));
  CHECK(run("eval" + best + " --test-images 16").out.find("16 images, loss ") != std::string::npos);
  CHECK(run("summary" + best + " --json").out.find("\"vit_nano\"") != std::string::npos);
  const Result compared =
      run("ablate --model vit_nano --masks none,polyline --seeds 1 --size 32 "
          "--epochs 1 --no-bench" +
          small + " --out '" + folder / "ablation" + "'");
  INFO(compared.err);
  CHECK(compared.code == 0);
  CHECK(compared.out.find("| whole     | polyline |") != std::string::npos);
  CHECK(mentions(run("bench --model vit_nano"), "vit_nano is a plain transformer"));
  CHECK(mentions(run("ablate --model vit_nano --structures linear --out '" + folder / "x" + "'"),
                 "whose attention is whole"));
  const std::string linear = "ablate --structures linear --out '" + folder / "y" + "' --masks ";
  CHECK(mentions(run(linear + "none,hilbert"), "--masks hilbert: is not for --structures linear"));
  const Result all = run(linear + "all --report");  // all that it takes
  CHECK(all.out.find("linear none, linear rmt, linear v2h, linear polyline, linear shared\n") !=
        std::string::npos);
}

}  // namespace recipe_test
