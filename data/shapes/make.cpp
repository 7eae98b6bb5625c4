// Writes one image of each class of the generated set `shapes` into a folder:
//   g++ -std=c++20 -O2 -Iinclude data/shapes/make.cpp -o /tmp/make_shapes && /tmp/make_shapes
//   data/shapes
#include <cstdio>
#include <string>

#include "ppma/data/shapes.hpp"
#include "ppma/io/image.hpp"

int main(int argc, char** argv) {
  using namespace ppma;
  const std::string folder = argc > 1 ? argv[1] : ".";
  ShapesOptions options;
  options.height = options.width = 128;
  options.most_extra = 3;
  options.seed = 7;
  const Dataset set = shapes(options);
  for (i64 i = 0; i < set.classes(); ++i) {
    const Sample sample = set.get(i);
    const std::string path =
        folder + "/" + set.class_names[static_cast<std::size_t>(sample.label)] + ".png";
    write_png(path, sample.image);
    std::printf("%s\n", path.c_str());
  }
}
