// ppma export: files for other runtimes, and what they say of themselves.

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "interop/onnx_file.hpp"
#include "interop/python.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/nn/state_dict.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;
using onnx_test::described;
using onnx_test::Message;

namespace {

// Weights as `train` writes them, of three classes and images of 32 pixels.
std::string trained_nano(const Folder& folder) {
  PpmaConfig config = ppma_nano();
  config.num_classes = 3;
  Ppma model(config, 1);
  const std::string path = folder / "nano.safetensors";
  write_safetensors(
      path, as_tensors(state_dict(model)),
      {{"config", config_to_json(config).dump()},
       {"input",
        R"({"size": 32, "crop": 0.875, "mean": [0.5, 0.5, 0.5], "deviation": [0.25, 0.25, 0.25],
            "classes": ["cat", "dog", "m\u00f6we"]})"}});
  return path;
}

// What the graph of a file takes and gives: "images (batch,3,32,32) f32 -> logits (batch,3) f32".
std::string ends_of(const Message& file) {
  const Message graph(file.text(7));
  std::string s = described(graph.messages(11).at(0)) + " ->";
  for (const Message& output : graph.messages(12)) s += " " + described(output);
  return s;
}

}  // namespace

TEST_CASE("tool: export writes a classifier with all that is needed to use it", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const std::string weights = " --weights '" + trained_nano(folder) + "'";
  const Result r = run("export" + weights + " --out '" + folder / "net.onnx" + "'");
  INFO(r.err);
  REQUIRE(r.code == 0);
  CHECK(r.err.empty());
  CHECK(r.out.find("ppma_nano, images (batch,3,32,32) -> logits (batch,3); ONNX, opset 18") !=
        std::string::npos);
  const Message file(text_of(folder / "net.onnx"));
  CHECK(ends_of(file) == "images (batch,3,32,32) f32 -> logits (batch,3) f32");
  const std::map<std::string, std::string> about = onnx_test::metadata_of(file);
  CHECK(about.at("classes") == "[\"cat\",\"dog\",\"m\xc3\xb6we\"]");
  CHECK(about.at("deviation") == "[0.25,0.25,0.25]");
  CHECK(about.at("size") == "32");
  CHECK(about.at("task") == "classify");
  CHECK(about.at("config").find("\"num_classes\":3") != std::string::npos);

  REQUIRE(run("export" + weights + " --size 48 64 --out '" + folder / "b.onnx" + "'").code == 0);
  CHECK(ends_of(Message(text_of(folder / "b.onnx"))) ==
        "images (batch,3,48,64) f32 -> logits (batch,3) f32");

  // What is there already stays where nothing can be written over it.
  const Result wrong =
      run("export" + weights + " --mask shared --out '" + folder / "net.onnx" + "'");
  CHECK(wrong.code == 1);
  CHECK(ends_of(Message(text_of(folder / "net.onnx"))) == ends_of(file));
  CHECK(run("export --task classify --segmentor '" + folder / "net.onnx" + "' --out '" +
            folder / "c.onnx" + "'")
            .err.find("--segmentor is for") != std::string::npos);
  CHECK(run("export --model deit_tiny --size 256 --out '" + folder / "c.onnx" + "'")
            .err.find("deit_tiny takes images of 224 x 224") != std::string::npos);
  write_safetensors(folder / "seg.safetensors", {{"w", Tensor::zeros({1})}}, {{"segmentor", "{}"}});
  CHECK(
      run("export --weights '" + folder / "seg.safetensors" + "' --out '" + folder / "c.onnx" + "'")
          .err.find("is a segmentor, not a classifier; use it with --task segment") !=
      std::string::npos);
  CHECK(folder.files() == 4);
}

TEST_CASE("tool: the program of docs/onnx.md uses what export writes", "[tool]") {
  NEEDS_TOOL();
  NEEDS_PYTHON("numpy, onnxruntime");
  const Folder folder;
  REQUIRE(run("export --weights '" + trained_nano(folder) + "' --out '" + folder / "net.onnx" + "'")
              .code == 0);
  std::ifstream document(std::string(PPMA_TEST_SOURCE_DIR) + "/docs/onnx.md");
  std::ofstream piece(folder / "piece.py");
  bool inside = false;
  for (std::string line; std::getline(document, line);) {
    if (line == "```python" || line == "```") inside = line == "```python";
    if (inside && line != "```python") piece << line << '\n';
  }
  piece.close();
  const std::string said = folder / "said";
  const std::string command =
      "cd '" + folder / "" + "' && '" + python_test::python() + "' piece.py > '" + said + "' 2>&1";
  CHECK(std::system(command.c_str()) == 0);
  INFO(text_of(said));
  CHECK((text_of(said) == "cat\n" || text_of(said) == "dog\n" || text_of(said) == "m\xc3\xb6we\n"));
}

TEST_CASE("tool: export knows the dense networks and the plain vision transformer", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const auto exported = [&](const std::string& arguments) {
    const Result r = run("export " + arguments + " --out '" + folder / "net.onnx" + "'");
    INFO(arguments << "\n" << r.err);
    CHECK(r.code == 0);
    CHECK(r.err == "ppma: no --weights: the weights of this network are random\n");
    return Message(text_of(folder / "net.onnx"));
  };
  const Message segmentor = exported("--task segment --model ppma_nano --size 64");
  CHECK(ends_of(segmentor) == "images (batch,3,64,64) f32 -> logits (batch,150,64,64) f32");
  CHECK(onnx_test::metadata_of(segmentor).at("segmentor").find("\"head\":\"upernet\"") !=
        std::string::npos);
  const Message detector = exported("--task detect --model ppma_nano --size 64 96");
  CHECK(ends_of(detector) ==
        "images (1,3,64,96) f32 -> boxes (objects,4) f32 scores (objects) f32 labels (objects) "
        "int64 masks (objects,28,28) f32");
  CHECK(ends_of(exported("--model deit_tiny --mask polyline")) ==
        "images (batch,3,224,224) f32 -> logits (batch,1000) f32");
}
