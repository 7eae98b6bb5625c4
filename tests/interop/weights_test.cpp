// Weights that Python's own packages read and write, bit for bit.

#include <cstring>
#include <map>
#include <string>

#include "interop/python.hpp"
#include "io/help.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/io/safetensors.hpp"

using namespace ppma;

namespace {

// Every type and kind of shape, NaN's bits and signed zeros among the elements.
TensorMap tensors_of_all_kinds() {
  Rng rng(3);
  TensorMap all{{"fc.weight", Tensor::randn({2, 3}, rng)}, {"fc.bias", Tensor::randn({2}, rng)}};
  Tensor odd = Tensor::zeros({4});
  const u32 patterns[] = {0x7fc00001u, 0x80000000u, 0xff800000u, 1u};
  std::memcpy(odd.raw(), patterns, sizeof patterns);
  all.emplace_back("odd", odd);
  all.emplace_back("f64", Tensor::randn({3, 1, 2}, rng, 1, DType::f64));
  all.emplace_back("bf16", Tensor::randn({5}, rng, 1, DType::bf16));
  all.emplace_back("steps", Tensor::from<i64>({i64{1} << 40}, {}));
  all.emplace_back("bytes", Tensor::from<u8>({0, 255, 7}, {3}));
  all.emplace_back("empty", Tensor::zeros({0, 3}));
  return all;
}

const std::map<std::string, std::string> about{{"config", "{\"a\": \"\xc3\xa4\"}"}};

// All files that check_weights.py speaks of.
void write_all(const io_test::Folder& folder) {
  const TensorMap all = tensors_of_all_kinds();
  save_weights(folder / "plain.pth", all, about);
  save_weights(folder / "under.pth", all, about, "model");
  save_weights(folder / "plain.safetensors", all, about);
}

void check_same(const TensorMap& got, const TensorMap& want) {
  REQUIRE(got.size() == want.size());
  for (const auto& [name, t] : want) {
    INFO(name);
    const Tensor* other = find(got, name);
    REQUIRE(other != nullptr);
    CHECK(io_test::same_elements(*other, t));
  }
}

}  // namespace

TEST_CASE("weights pass through .pth and .safetensors bit for bit") {
  const io_test::Folder folder;
  write_all(folder);
  for (const char* name : {"plain.pth", "under.pth", "plain.safetensors"}) {
    const WeightsOfFile read = weights_of_file(folder / name);
    check_same(read.tensors, tensors_of_all_kinds());
    CHECK(read.metadata == about);
    CHECK(read.beside.empty());
  }
  CHECK_THAT(io_test::error_of([&] { save_weights(folder / "a.safetensors", {}, {}, "model"); }),
             io_test::Contains("has no dicts within it"));
  CHECK(folder.files() == 3);
}

TEST_CASE("torch.load reads weights that were saved, and what it writes is the same") {
  NEEDS_PYTHON("torch");
  const io_test::Folder folder;
  write_all(folder);
  REQUIRE(python_test::failure_of("check_weights.py", "pth '" + folder / "" + "'") == "");
  check_same(load_weights(folder / "back.pth"), tensors_of_all_kinds());
}

TEST_CASE("the safetensors package reads weights that were saved, and what it writes is the same") {
  NEEDS_PYTHON("torch, safetensors.torch");
  const io_test::Folder folder;
  write_all(folder);
  REQUIRE(python_test::failure_of("check_weights.py", "safetensors '" + folder / "" + "'") == "");
  const Safetensors back = read_safetensors(folder / "back.safetensors");
  check_same(back.tensors, tensors_of_all_kinds());
  CHECK(back.metadata == about);
}
