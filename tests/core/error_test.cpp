#include "ppma/core/error.hpp"

#include <string>
#include <thread>

#include "ppma/core/closest.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/shape.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("check joins its parts into the message") {
  CHECK(says(
      [] {
        check(false, "op: got ", Shape{2, 3}, ' ', DType::f32, ", ", 7, ", ", 0.5, ", ", true, ", ",
              Device::cpu);
      },
      "op: got (2, 3) f32, 7, 0.5, true, cpu"));
  CHECK(thrown([] { check(true, "never"); }) == "nothing");
  CHECK(str("x", std::string("y"), 1 + 1) == "xy2");
}

TEST_CASE("an Error is a std::runtime_error") { CHECK_THROWS_AS(fail("no"), std::runtime_error); }

TEST_CASE("a Scope says where in the network") {
  {
    const Scope layers("layers.2");
    const std::string name = "blocks.0";
    const Scope block(name);
    CHECK(Scope::path() == "layers.2.blocks.0");
    CHECK(says([] { fail("boom"); }, "boom (in layers.2.blocks.0)"));
    // An exception unwinds the scopes inside of it.
    CHECK(says(
        [] {
          const Scope inner("ffn");
          fail("boom");
        },
        "boom (in layers.2.blocks.0.ffn)"));
    CHECK(Scope::path() == "layers.2.blocks.0");
    std::string elsewhere = "?";
    std::thread([&] { elsewhere = Scope::path(); }).join();
    CHECK(elsewhere.empty());  // one list per thread
  }
  CHECK(Scope::path().empty());
  CHECK(thrown([] { fail("boom"); }) == "boom");
}

TEST_CASE("visit names the op and the dtype that it cannot compute") {
  CHECK(says([] { visit(Device::cpu, DType::int64, "gelu", [](auto, auto) {}); },
             "gelu: int64 is not computed on the cpu"));
  CHECK(says([] { visit(Device::cpu, DType::bf16, "gelu", [](auto, auto) {}); },
             "convert with .to(DType::f32)"));
  CHECK(says([] { visit(Device::cuda, DType::f32, "gelu", [](auto, auto) {}); },
             "gelu: this code was compiled without CUDA"));
  CHECK(visit(Device::cpu, DType::f32, "op", [](auto, auto t) { return sizeof t; }) == 4);
  CHECK(visit(Device::cpu, DType::f64, "op", [](auto, auto t) { return sizeof t; }) == 8);
}

TEST_CASE("the word that somebody meant: the nearest one, or none", "[core]") {
  const std::vector<std::string> known{"epochs", "batch", "rpn_nms", "lr", "seed", "seeds"};
  for (const auto& [word, meant] :
       {std::pair{"epoch", "epochs"}, std::pair{"eopchs", "epochs"}, std::pair{"bacth", "batch"},
        std::pair{"rpn_mns", "rpn_nms"}, std::pair{"seed", "seed"}, std::pair{"seedss", "seeds"},
        std::pair{"lrr", ""}, std::pair{"x", ""}, std::pair{"", ""}, std::pair{"velocity", ""}})
    CHECK(closest(word, known) == meant);
  CHECK(closest(std::string(1000, 'x'), known).empty());
  CHECK(closest("epoch", {}).empty());
}
