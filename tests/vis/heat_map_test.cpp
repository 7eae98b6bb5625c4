#include "ppma/vis/heat_map.hpp"

#include <cmath>

#include "catch.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("a heat map: fields in the colours of their values", "[vis]") {
  const Picture p = heat_map({.values = {1, 2, std::nan(""), 3},
                              .rows = {"a", "b"},
                              .columns = {"x", "y"},
                              .title = "title",
                              .row_label = "rows",
                              .column_label = "columns"});
  std::vector<i64> pixels(4, 0);  // of the lowest, the middle, the highest, and of none
  const std::vector<Color> colors{color_of(ColorMap::viridis, 0), color_of(ColorMap::viridis, 0.5),
                                  color_of(ColorMap::viridis, 1), faint_ink};
  const u8* const at = p.image().data<u8>();
  for (i64 i = 0; i < p.width() * p.height(); ++i)
    for (std::size_t c = 0; c < 4; ++c)
      pixels[c] += Color{at[3 * i], at[3 * i + 1], at[3 * i + 2]} == colors[c];
  for (const i64 n : pixels) CHECK(n > 1500);
  CHECK(says(
      [] {
        heat_map({.values = {1}, .rows = {"a"}, .columns = {"x", "y"}});
      },
      "1 values for 1 rows and 2 columns"));
  CHECK(says([] { heat_map({.values = {std::nan("")}, .rows = {"a"}, .columns = {"x"}}); },
             "there is no finite value"));
}
