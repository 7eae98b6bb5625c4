// Commands about networks and their files, called from a program: what the tool prints of the same.

#include "commands/help.hpp"
#include "ppma/commands/info.hpp"
#include "ppma/io/safetensors.hpp"

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
