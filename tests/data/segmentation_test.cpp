// Segmentation sets in their layouts, the augmentations, and bad files.

#include <filesystem>
#include <set>

#include "catch.hpp"
#include "ppma/data/segmentation_batches.hpp"
#include "ppma/data/segmentation_names.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/json_records.hpp"
#include "ppma/io/png.hpp"
#include "ppma/io/zip.hpp"
#include "ppma/metrics/mean_iou.hpp"
#include "ppma/train/run_folder.hpp"
#include "thrown.hpp"

using namespace ppma;
namespace fs = std::filesystem;

namespace segmentation_test {

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("ppma_segmentation_" + std::to_string(::getpid()));
  Folder() { fs::remove_all(path), fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string file(const std::string& name) const {
    fs::create_directories((path / name).parent_path());
    return (path / name).string();
  }
};

// A grey PNG with these numbers: an image file with one channel.
void write_labels(const std::string& path, i64 h, i64 w, const std::vector<u8>& values) {
  Tensor t = Tensor::empty({h, w, 1}, DType::uint8);
  std::copy(values.begin(), values.end(), t.data<u8>());
  write_png(path, t);
}
void write_image(const std::string& path, i64 h, i64 w) {
  write_png(path, Tensor::full({h, w, 3}, 90, DType::uint8));
}

}  // namespace

TEST_CASE("segmentation: the plain layout, and what is refused in it") {
  const Folder f;
  write_image(f.file("img_dir/train/a.png"), 2, 3),
      write_labels(f.file("ann_dir/train/a.png"), 2, 3, {0, 1, 2, 255, 0, 1});
  write_file(f.file("classes.txt"), std::string_view("sky\nroad\r\ncar"));
  const SegmentationSet set = segmentation_folder(f.path.string(), Split::train);
  REQUIRE(set.size == 1);
  CHECK(set.class_names == std::vector<std::string>{"sky", "road", "car"});
  CHECK(set.get(0).labels.to_vector<i64>() == std::vector<i64>{0, 1, 2, 255, 0, 1});
  CHECK(thrown([&] {
          segmentation_folder(f.path.string(), Split::val);
        }).find("has no folders img_dir/val and ann_dir/val") != std::string::npos);

  write_labels(f.file("ann_dir/train/a.png"), 2, 3, {0, 1, 2, 255, 7, 1});
  CHECK(thrown([&] {
          set.get(0);
        }).find("a.png: label 7 at row 1, column 1; with 3 classes it must be 0 to 2, or 255") !=
        std::string::npos);
  write_labels(f.file("ann_dir/train/a.png"), 3, 3, std::vector<u8>(9, 0));
  CHECK(thrown([&] { set.get(0); }).find("a.png: 3 x 3 pixels, its image 3 x 2") !=
        std::string::npos);
  write_image(f.file("img_dir/train/b.png"), 2, 3);
  CHECK(thrown([&] {
          segmentation_folder(f.path.string(), Split::train);
        }).find("b.png: has no labels") != std::string::npos);
  fs::remove(f.path / "ann_dir/train/a.png");  // after the folder was listed
  CHECK(thrown([&] { set.get(0); }).find("a.png: cannot be read") != std::string::npos);
  write_labels(f.file("ann_dir/train/b.png"), 2, 3, std::vector<u8>(6, 0));
  fs::copy_file(f.path / "img_dir/train/b.png", f.path / "img_dir/train/b.jpg");
  CHECK(thrown([&] {
          segmentation_folder(f.path.string(), Split::train);
        }).find("b.jpg and b.png have one name but for the ending") != std::string::npos);
  // An image that is cut off, met in the loader's thread.
  const Folder cut;
  for (const char* name : {"a", "b"})
    write_image(cut.file(str("img_dir/train/", name, ".png")), 8, 8),
        write_labels(cut.file(str("ann_dir/train/", name, ".png")), 8, 8, std::vector<u8>(64, 0));
  write_file(cut.file("classes.txt"), std::string_view("sky\nroad"));
  const std::vector<u8> whole = read_file(cut.file("img_dir/train/b.png"));
  write_file(cut.file("img_dir/train/b.png"), Bytes(whole).first(whole.size() / 2));
  BatchStream<SegmentationBatch> loader(segmentation_batches(
      segmentation_folder(cut.path.string(), Split::train),
      {.batch = 1, .longer = 8, .shorter = 8, .crop_height = 8, .crop_width = 8}));
  loader.start(0);
  CHECK(thrown([&] {
          for (SegmentationBatch b; loader.next(b);) {
          }
        }).find("b.png: ") != std::string::npos);
}

TEST_CASE("segmentation: ADE20K's zero is nothing, Cityscapes' ids become the trained classes") {
  const Folder f;
  write_image(f.file("images/validation/x.png"), 1, 4),
      write_labels(f.file("annotations/validation/x.png"), 1, 4, {0, 1, 150, 255});
  CHECK(segmentation_folder(f.path.string(), Split::val).get(0).labels.to_vector<i64>() ==
        std::vector<i64>{255, 0, 149, 255});
  write_labels(f.file("annotations/validation/x.png"), 1, 4, {0, 1, 151, 255});
  CHECK(thrown([&] {
          segmentation_folder(f.path.string(), Split::val).get(0);
        }).find("label 151 at row 0, column 2; with 150 classes it must be 1 to 150, or 255") !=
        std::string::npos);

  const Folder c;
  write_image(c.file("leftImg8bit/train/ulm/ulm_1_leftImg8bit.png"), 1, 5);
  write_labels(c.file("gtFine/train/ulm/ulm_1_gtFine_labelIds.png"), 1, 5, {7, 0, 33, 26, 29});
  const SegmentationSet city = segmentation_folder(c.path.string(), Split::train);
  CHECK(city.classes() == 19);
  CHECK(city.get(0).labels.to_vector<i64>() == std::vector<i64>{0, 255, 18, 13, 255});
  write_labels(c.file("gtFine/train/ulm/ulm_1_gtFine_labelIds.png"), 1, 5, {7, 77, 33, 26, 29});
  CHECK(says([&] { city.get(0); },
             "ulm_1_gtFine_labelIds.png: label 77 at row 0, column 1; there is no such label id"));
  // Maps of classes go before maps of ids, image by image.
  write_image(c.file("leftImg8bit/train/ulm/ulm_2_leftImg8bit.png"), 1, 4);
  CHECK(says([&] { segmentation_folder(c.path.string(), Split::train); },
             "ulm_2_leftImg8bit.png: has no labels; "));
  write_labels(c.file("gtFine/train/ulm/ulm_2_gtFine_labelTrainIds.png"), 1, 4, {0, 18, 255, 7});
  write_labels(c.file("gtFine/train/ulm/ulm_1_gtFine_labelIds.png"), 1, 5, {7, 0, 33, 26, 29});
  const SegmentationSet both = segmentation_folder(c.path.string(), Split::train);
  REQUIRE(both.size == 2);
  CHECK(both.get(0).labels.to_vector<i64>() == std::vector<i64>{0, 255, 18, 13, 255});
  CHECK(both.get(1).labels.to_vector<i64>() == std::vector<i64>{0, 18, 255, 7});
  write_labels(c.file("gtFine/train/ulm/ulm_2_gtFine_labelTrainIds.png"), 1, 4, {0, 19, 255, 7});
  CHECK(says([&] { both.get(1); },
             "ulm_2_gtFine_labelTrainIds.png: label 19 at row 0, column 1; with 19 classes it must "
             "be 0 to 18, or 255"));
}

TEST_CASE("segmentation: layouts are told apart, and have their classes' names") {
  CHECK(ade20k_classes().size() == 150);
  CHECK((ade20k_classes()[0] == "wall" && ade20k_classes()[20] == "car" &&
         ade20k_classes()[127] == "bicycle" && ade20k_classes()[149] == "flag"));
  CHECK(std::set<std::string>(ade20k_classes().begin(), ade20k_classes().end()).size() == 150);
  // cityscapesscripts' table: trained class and label id.
  const LabelTable ids = cityscapes_labels();
  int trained = 0, nothing = 0, refused = 0;
  for (const int label : ids)
    trained += label >= 0 && label < 19, nothing += label == 255, refused += label == -1;
  CHECK((trained == 19 && nothing == 16 && refused == 221));
  CHECK((ids[7] == 0 && ids[17] == 5 && ids[24] == 11 && ids[28] == 15 && ids[31] == 16));
  CHECK((cityscapes_classes()[5] == "pole" && cityscapes_classes()[11] == "person" &&
         cityscapes_classes()[15] == "bus" && cityscapes_classes()[16] == "train"));

  const Folder f;
  const std::string root = f.path.string();
  CHECK(!segmentation_layout(root));
  write_image(f.file("train/a.png"), 1, 4), write_image(f.file("val/a.png"), 1, 4);
  write_labels(f.file("trainannot/a.png"), 1, 4, {0, 10, 11, 3});
  CHECK(segmentation_layout(root) == SegmentationLayout::camvid);
  const SegmentationSet camvid = segmentation_folder(root, Split::train);
  CHECK(camvid.class_names == camvid_classes());
  CHECK(camvid.get(0).labels.to_vector<i64>() == std::vector<i64>{0, 10, 255, 3});
  CHECK(says([&] { segmentation_folder(root, Split::val); },
             "has no folders val and valannot, which `data` camvid has for validation"));
  CHECK(says([&] { segmentation_folder(root, Split::train, SegmentationLayout::cityscapes); },
             "has no folders leftImg8bit/train and gtFine/train, which `data` cityscapes has"));
  write_file(root + "/classes.txt", std::string_view("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nvoid\n"));
  CHECK(segmentation_folder(root, Split::train).get(0).labels.to_vector<i64>()[2] == 11);
}

TEST_CASE("segmentation: an image and its labels stay together through the augmentations") {
  // The image's red is ten times the label: wherever they lie after scaling, crops and flips, that
  // must hold.
  SegmentationSample s{Tensor::zeros({8, 12, 3}, DType::uint8),
                       Tensor::zeros({8, 12}, DType::uint8), "s"};
  for (i64 i = 0; i < 8; ++i)
    for (i64 j = 0; j < 12; ++j) {
      s.labels.data<u8>()[i * 12 + j] = static_cast<u8>(j / 4 + 3 * (i / 4));
      s.image.data<u8>()[(i * 12 + j) * 3] = static_cast<u8>(10 * s.labels.data<u8>()[i * 12 + j]);
    }
  bool flipped = false, not_flipped = false;
  for (const double factor : {1.0, 2.0, 3.0})
    for (u64 k = 0; k < 20; ++k) {
      const SegmentationLoading o{.longer = 12,
                                  .shorter = 8,
                                  .least_factor = factor,
                                  .most_factor = factor,
                                  .crop_height = 6,
                                  .crop_width = 7,
                                  .most_share = 1,
                                  .distort = false};
      SegmentationSample t = s;
      Rng rng(3, k);
      augment_segmentation(t, o, rng);
      REQUIRE(t.image.shape() == Shape{6, 7, 3});
      const u8* const l = t.labels.data<u8>();
      for (i64 p = 0; p < 42; ++p) {
        // An enlarged image is smooth where two labels meet: only there may it be between their
        // colours.
        int least = l[p], most = l[p];
        for (i64 q = 0; q < 42; ++q)
          if (factor > 1 && std::abs(p / 7 - q / 7) <= 1 && std::abs(p % 7 - q % 7) <= 1)
            least = std::min<int>(least, l[q]), most = std::max<int>(most, l[q]);
        // what lies beyond is not known
        const bool border = factor > 1 && (p / 7 == 0 || p / 7 == 5 || p % 7 == 0 || p % 7 == 6);
        const int red = t.image.data<u8>()[3 * p];
        if (!border) REQUIRE((red >= 10 * least && red <= 10 * most));
      }
      if (factor > 1) continue;
      const bool falls = l[0] > l[6];
      flipped |= falls, not_flipped |= !falls;
    }
  CHECK((flipped && not_flipped));
}

TEST_CASE("segmentation: distortions have the published ranges, probabilities and order") {
  // Two greys give brightness and contrast, dark_red saturation and hue; bright_red is clipped by a
  // contrast above 1, so that it tells whether contrast came before saturation.
  Tensor x = Tensor::zeros({1, 4, 3}, DType::uint8);
  const u8 values[12] = {100, 100, 100, 140, 140, 140, 160, 80, 80, 240, 120, 120};
  std::copy_n(values, 12, x.data<u8>());
  constexpr int trials = 8000;
  int shifted = 0, scaled = 0, plain = 0, faded = 0, turned = 0, before = 0, after = 0;
  double least_shift = 0, most_shift = 0, least_scale = 1, most_scale = 1, least_fade = 1,
         most_fade = 1, least_turn = 0, most_turn = 0, most_offset = 0;
  for (u64 k = 0; k < trials; ++k) {
    Rng rng(11, k);
    const std::vector<double> y = distort_photometric(x, rng).to_vector<double>();
    // levels are cut off: shift is known to 3 or so
    const double contrast = (y[3] - y[0]) / 40, offset = y[0] - 100 * contrast,
                 shift = offset / contrast;
    const bool moved = std::abs(shift) > 4;
    shifted += moved, scaled += std::abs(contrast - 1) > 0.04;
    least_shift = std::min(least_shift, shift), most_shift = std::max(most_shift, shift);
    least_scale = std::min(least_scale, contrast), most_scale = std::max(most_scale, contrast);
    most_offset = std::max(most_offset, std::abs(offset));
    if (moved) continue;
    ++plain;
    const double most = std::max({y[6], y[7], y[8]}), least = std::min({y[6], y[7], y[8]}),
                 range = most - least;
    const double fade = (range / most) / 0.5;
    const double turn = most == y[6]   ? 30 * (y[7] - y[8]) / range
                        : most == y[7] ? 60 + 30 * (y[8] - y[6]) / range
                                       : -60 + 30 * (y[6] - y[7]) / range;
    faded += std::abs(fade - 1) > 0.05, turned += std::abs(turn) > 1.5;
    least_fade = std::min(least_fade, fade), most_fade = std::max(most_fade, fade);
    least_turn = std::min(least_turn, turn), most_turn = std::max(most_turn, turn);
    if (contrast < 1.2 || std::abs(fade - 1) < 0.3) continue;
    const double seen = std::min({y[9], y[10], y[11]});
    const double if_before = 255 * (1 - fade * (1 - 120 * contrast / 255)),
                 if_after = 240 * contrast * (1 - fade / 2);
    ++(std::abs(seen - if_before) < std::abs(seen - if_after) ? before : after);
  }
  const auto share = [](int n, int of) { return static_cast<double>(n) / of; };
  // of the half, those within 4 look unmoved
  CHECK(share(shifted, trials) == Approx(0.5 * 28 / 32).margin(0.03));
  CHECK(share(scaled, trials) == Approx(0.5 * 0.46 / 0.5).margin(0.03));
  CHECK(share(faded, plain) == Approx(0.5 * 0.45 / 0.5).margin(0.05));
  CHECK(share(turned, plain) == Approx(0.5 * 33 / 36).margin(0.05));
  CHECK((least_shift < -29 && least_shift > -36 && most_shift > 29 && most_shift < 36));
  CHECK((least_scale < 0.53 && least_scale > 0.47 && most_scale > 1.47 && most_scale < 1.53));
  CHECK((least_fade < 0.55 && least_fade > 0.45 && most_fade > 1.45 && most_fade < 1.55));
  CHECK((least_turn < -16 && least_turn > -19.5 && most_turn > 15 && most_turn < 18.5));
  // brightness comes before contrast, which scales it: 32 at most otherwise
  CHECK(most_offset > 38);
  REQUIRE(before + after > 100);
  CHECK(share(before, before + after) == Approx(0.5).margin(0.15));
}

TEST_CASE("segmentation: images of one row or column are augmented and padded") {
  for (const Shape& size : {Shape{1, 90}, Shape{90, 1}, Shape{1, 1}}) {
    SegmentationSet set = shapes_segmentation({.height = 32, .width = 32, .images = 3});
    set.load = [size](i64) {
      return SegmentationSample{Tensor::full({size[0], size[1], 3}, 40, DType::uint8),
                                Tensor::full({size[0], size[1]}, 2, DType::uint8), "thin"};
    };
    BatchStream<SegmentationBatch> loader(segmentation_batches(
        set, {.batch = 3, .longer = 64, .shorter = 32, .crop_height = 32, .crop_width = 32}));
    loader.start(0);
    SegmentationBatch b;
    REQUIRE(loader.next(b));
    CHECK(b.images.shape() == Shape{3, 3, 32, 32});
    i64 labelled = 0;
    for (const i64 l : b.labels.to_vector<i64>()) {
      REQUIRE((l == 2 || l == 255));
      labelled += l == 2;
    }
    CHECK(labelled > 0);
  }
}

TEST_CASE("segmentation: crops avoid a class that fills them") {
  Tensor labels = Tensor::zeros({32, 32}, DType::uint8);  // class 1 in the lower right quarter
  for (i64 i = 16; i < 32; ++i) std::fill_n(labels.data<u8>() + i * 32 + 16, 16, u8{1});
  int mixed = 0, mixed_before = 0;
  for (u64 k = 0; k < 50; ++k)
    for (const double share : {0.75, 1.0}) {
      Rng rng(1, k);
      const Tensor part =
          detail::crop_labels(labels, segmentation_crop(labels, 8, 8, share, rng), 255);
      i64 ones = 0;
      for (i64 p = 0; p < 64; ++p) ones += part.data<u8>()[p];
      (share < 1 ? mixed : mixed_before) += ones > 16 && ones < 48;
    }
  CHECK(mixed > 2 * mixed_before);
}

TEST_CASE("segmentation: colours in HSV turn and fade as they should") {
  Tensor x = Tensor::zeros({1, 3, 3}, DType::uint8);
  const u8 values[9] = {255, 0, 0, 10, 200, 30, 77, 77, 77};
  std::copy_n(values, 9, x.data<u8>());
  // Eight bits of hue and saturation are a level of colour.
  const auto near = [&](const Tensor& got, const std::vector<i64>& want) {
    const std::vector<i64> v = got.to_vector<i64>();
    for (std::size_t i = 0; i < want.size(); ++i) {
      INFO("level " << i << ": " << v[i] << ", not " << want[i]);
      CHECK(std::abs(v[i] - want[i]) <= 1);
    }
  };
  near(detail::change_colour(x, 1, 0), {255, 0, 0, 10, 200, 30, 77, 77, 77});
  // red to green to blue
  near(detail::change_colour(x, 1, 60), {0, 255, 0, 30, 10, 200, 77, 77, 77});
  near(detail::change_colour(x, 0, 0), {255, 255, 255, 200, 200, 200, 77, 77, 77});
}

TEST_CASE("segmentation: batches are a function of seed, epoch and number") {
  const SegmentationSet set = shapes_segmentation({.height = 24, .width = 24, .images = 7});
  CHECK(set.classes() == 11);
  const SegmentationLoading o{
      .batch = 2, .longer = 24, .shorter = 24, .crop_height = 20, .crop_width = 28, .seed = 4};
  const BatchPlan<SegmentationBatch> plan = segmentation_batches(set, o);
  BatchStream<SegmentationBatch> a(plan), b(plan, {.workers = 0});
  SegmentationBatch x, y;
  a.start(0), b.start(0);
  while (a.next(x)) CHECK(x.labels.shape() == Shape{2, 20, 28});
  a.start(1), b.start(1);
  for (i64 n = 0; n < 3; ++n) {
    REQUIRE(a.next(x));
    REQUIRE(b.next(y));
    CHECK(x.images.to_vector<float>() == y.images.to_vector<float>());
    CHECK(x.labels.to_vector<i64>() == y.labels.to_vector<i64>());
  }
  CHECK(!a.next(x));
}

TEST_CASE("segmentation: processes share every batch") {
  const SegmentationSet set = shapes_segmentation({.height = 24, .width = 24, .images = 9});
  SegmentationLoading o{
      .batch = 4, .longer = 24, .shorter = 24, .crop_height = 20, .crop_width = 20, .seed = 4};
  const SegmentationBatch whole = segmentation_batches(set, o).of_epoch(1)(1);
  std::vector<float> images;
  std::vector<i64> labels;
  for (i64 rank = 0; rank < 2; ++rank) {
    o.part = {rank, 2};
    const BatchPlan<SegmentationBatch> plan = segmentation_batches(set, o);
    CHECK(plan.batches == 2);
    const SegmentationBatch part = plan.of_epoch(1)(1);
    for (const float v : part.images.to_vector<float>()) images.push_back(v);
    for (const i64 v : part.labels.to_vector<i64>()) labels.push_back(v);
  }
  CHECK(images == whole.images.to_vector<float>());
  CHECK(labels == whole.labels.to_vector<i64>());
  o.part = {0, 3};
  CHECK(thrown([&] { segmentation_batches(set, o); }) ==
        "segmentation loader: a batch of 4 cannot be divided equally among 3 processes");
}

TEST_CASE("segmentation: endings in any case, hidden files, labels of 16 bits, what is left out") {
  const Folder f;
  const std::string root = f.path.string();
  write_file(f.file("classes.txt"), std::string_view("sky\nroad"));
  write_image(f.file("img_dir/train/a.PNG"), 2, 3),
      write_labels(f.file("ann_dir/train/a.png"), 2, 3, {0, 1, 0, 255, 0, 1});
  write_image(f.file("img_dir/train/b.png"), 2, 3),
      write_labels(f.file("ann_dir/train/b.PNG"), 2, 3, {1, 1, 0, 255, 0, 1});
  write_image(f.file("img_dir/train/.cache/c.png"), 2, 3),
      write_file(f.file("img_dir/train/._a.png"), std::string_view("x"));
  write_file(f.file("img_dir/train/d.webp"), std::string_view("x")),
      write_labels(f.file("ann_dir/train/d.png"), 1, 1, {0});
  fs::create_directory_symlink(f.path / "img_dir/train", f.path / "img_dir/val");
  fs::create_directory_symlink(f.path / "ann_dir/train", f.path / "ann_dir/val");
  for (const Split split : {Split::train, Split::val}) {
    const SegmentationSet set = segmentation_folder(root, split);
    REQUIRE(set.size == 2);
    CHECK(set.get(0).labels.to_vector<i64>() == std::vector<i64>{0, 1, 0, 255, 0, 1});
    CHECK(set.get(1).labels.to_vector<i64>() == std::vector<i64>{1, 1, 0, 255, 0, 1});
    CHECK(set.left_out ==
          "1 file that is not .jpg, .jpeg, .png, .bmp, .ppm or .pgm (1 .webp; such as d.webp), 1 "
          "label maps without an image (such as d.png)");
  }
  // 16 bits, grey: 0, 1, 65535 and 300.
  const auto wide = [&](u32 last) {
    std::vector<u8> png(std::begin(detail::png_magic), std::end(detail::png_magic));
    const auto number = [](std::vector<u8>& to, u32 n) {
      for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<u8>(n >> shift));
    };
    const auto piece = [&](const char* type, const std::vector<u8>& data) {
      number(png, static_cast<u32>(data.size()));
      std::vector<u8> named(type, type + 4);
      named.insert(named.end(), data.begin(), data.end());
      png.insert(png.end(), named.begin(), named.end());
      number(png, crc32(named));
    };
    std::vector<u8> rows{
        0, 0, 0, 0, 1, 255, 255, 0, 0, 0, 0, 0, static_cast<u8>(last >> 8), static_cast<u8>(last)};
    std::vector<u8> stored{0x78, 1, 1, 14, 0, 0xf1, 0xff};  // zlib, one stored block
    stored.insert(stored.end(), rows.begin(), rows.end());
    number(stored, 0);
    piece("IHDR", {0, 0, 0, 3, 0, 0, 0, 2, 16, 0, 0, 0, 0}), piece("IDAT", stored),
        piece("IEND", {});
    write_file(f.file("ann_dir/train/a.png"), Bytes(png));
  };
  const SegmentationSet set = segmentation_folder(root, Split::train);
  wide(1);
  CHECK(set.get(0).labels.to_vector<i64>() == std::vector<i64>{0, 1, 255, 0, 0, 1});
  wide(300);
  CHECK(says([&] { set.get(0); }, "a.png: label 300 at row 1, column 2; labels are 0 to 254"));
  CHECK(reduce_zero_label(Tensor::from<i64>({0, 300, 1, 65535}, {4}), 65535).to_vector<i64>() ==
        std::vector<i64>{65535, 299, 0, 65535});
  CHECK(reduce_zero_label(Tensor::from<u8>({0, 2}, {2}), 65535).to_vector<i64>() ==
        std::vector<i64>{65535, 1});
}

}  // namespace segmentation_test
