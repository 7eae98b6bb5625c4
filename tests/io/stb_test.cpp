// A program that includes the library and uses stb_image itself, its own copy, in the same
// translation unit.

#include "ppma/io/stb.hpp"

#include "ppma/io/image.hpp"

#if PPMA_STB

#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include PPMA_STB_IMAGE

#include "help.hpp"

using namespace io_test;

TEST_CASE("stb_image of one's own beside the library's", "[io]") {
  const std::string path = reference("images/rgb.png");
  int width = 0, height = 0, channels = 0;
  // with files, which ours lacks
  stbi_uc* pixels = stbi_load(path.c_str(), &width, &height, &channels, 3);
  REQUIRE(pixels != nullptr);
  const Tensor image = read_image(path);
  REQUIRE(image.shape() == Shape({height, width, 3}));
  REQUIRE(std::memcmp(pixels, image.raw(), static_cast<std::size_t>(image.bytes())) == 0);
  stbi_image_free(pixels);
}

#endif
