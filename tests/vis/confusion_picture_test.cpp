// A confusion matrix as a picture: what is right is green, mistakes are red, and it is as large as
// its classes need.

#include "ppma/vis/confusion_picture.hpp"

#include "catch.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

struct Colors {
  i64 green = 0, red = 0;
};
Colors colors_of(const Picture& picture) {
  Colors n;
  const u8* p = picture.image().data<u8>();
  for (i64 i = 0; i < picture.image().numel(); i += 3) {
    n.green += p[i + 1] > p[i] + 40 && p[i + 1] > p[i + 2] + 40 ? 1 : 0;
    n.red += p[i] > p[i + 1] + 40 && p[i] > p[i + 2] + 40 ? 1 : 0;
  }
  return n;
}

}  // namespace

TEST_CASE("a confusion matrix as a picture", "[vis]") {
  for (const i64 classes : {2, 10, 100}) {
    INFO(classes);
    std::vector<std::string> names;
    Confusion right(classes), wrong(classes);
    for (i64 k = 0; k < classes; ++k) {
      names.push_back(str("class ", k));
      right.add({0, k, k, 1, 1, 1});
      wrong.add({0, k, (k + 1) % classes, 2, 1, 0});
    }
    const Picture a = confusion_picture(right, names), b = confusion_picture(wrong, names);
    // Beside what explains the colours, which both pictures have.
    const Colors good = colors_of(a), bad = colors_of(b);
    const i64 cell = std::min(i64{760} / classes, i64{64}), cells = classes * cell * cell;
    CHECK(good.green - bad.green > cells / 2);
    CHECK(bad.red - good.red > cells / 2);
    CHECK((a.width() > classes * cell && a.height() > classes * cell));
  }
  CHECK(says([] { confusion_picture(Confusion(3), {"a"}); }, "1 names for 3 classes"));
  CHECK(says([] { confusion_picture(Confusion(4001), std::vector<std::string>(4001)); },
             "4001 classes are too many"));
  CHECK(detail::shortened("short", 8) == "short");
  CHECK(detail::shortened("\u00fcber\u00fcberlang", 8) == "\u00fcber\u00fcb..");
}
