// What the page calls: functions of numbers, and arrays that it reads and writes in place. Each
// returns 0 (false) after an error, which web_error() then says in words.

#include <array>
#include <cmath>
#include <memory>
#include <string>

#include "learn.hpp"
#include "look.hpp"
#include "scenes.hpp"

namespace {

std::string last_error;
std::vector<ppma::u8> picture;  // RGBA, square
web::Look look;
std::unique_ptr<web::Learner> learner;
ppma::MaskMaps learnt;
std::vector<float> learnt_map;
std::vector<ppma::u8> learnt_image;

template <class F>
auto guarded(F f) -> decltype(f()) {
  try {
    last_error.clear();
    return f();
  } catch (const std::exception& e) {
    last_error = e.what();
  }
  return {};
}

void as_rgba(const ppma::Tensor& image, std::vector<ppma::u8>& out) {
  out.clear();
  const ppma::u8* p = image.data<ppma::u8>();
  for (ppma::i64 k = 0; k < image.dim(0) * image.dim(1); ++k, p += 3)
    out.insert(out.end(), {p[0], p[1], p[2], 255});
}

web::Learner& running() {
  ppma::check(learner != nullptr, "there is no network yet: start one first");
  return *learner;
}

}  // namespace

extern "C" {

const char* web_error() { return last_error.c_str(); }

// ---- one query of a picture (look.hpp) ----------------------------------------------------------

// Room for a square picture of side x side RGBA bytes.
ppma::u8* web_picture(int side) {
  return guarded([&] {
    ppma::check(side > 0 && side <= 4096, "a picture of ", side, " pixels a side");
    picture.assign(static_cast<std::size_t>(4 * side * side), 255);
    return picture.data();
  });
}
// Draws scene number `scene` (scenes.hpp) there.
ppma::u8* web_scene(int scene, int side) {
  return guarded([&] {
    as_rgba(web::draw_scene(scene, side), picture);
    return picture.data();
  });
}
// Cuts the picture into n x n tokens; decays from their contrast.
int web_tokens(int n, double contrast) {
  return guarded([&] {
    const double side = std::sqrt(static_cast<double>(picture.size() / 4));
    look.tokens(picture.data(), static_cast<ppma::i64>(side), n, contrast);
    return 1;
  });
}
// The maps, n x n each: 0 alpha, 1 beta (both the page may change), 2 the mask, 3 attention without
// it, 4 with it.
float* web_map(int which) {
  return std::array{&look.alpha, &look.beta, &look.mask, &look.plain,
                    &look.masked}[static_cast<std::size_t>(which)]
      ->data();
}
int web_decays(double contrast) {
  return guarded([&] {
    look.decays(contrast);
    return 1;
  });
}
int web_look(int view, int row, int column) {
  return guarded([&] {
    ppma::check(view >= 0 && view < web::views, "there is no mask of number ", view);
    look.look(static_cast<web::View>(view), row, column);
    return 1;
  });
}
// How many paths (or sequences) the mask just looked at has, and what each lets through.
int web_paths() { return static_cast<int>(look.rows.size()); }
float* web_path_row(int which) {
  return guarded([&] {
    ppma::check(which >= 0 && which < web_paths(), "the mask has ", web_paths(),
                " rows, no number ", which);
    return look.rows[static_cast<std::size_t>(which)].data();
  });
}
// The number of tokens on a path from key to query; web_cells() are their rows and columns.
int web_path(int view, int which, int key_row, int key_column, int row, int column) {
  return guarded([&] {
    look.path(static_cast<web::View>(view), which, {key_row, key_column}, {row, column});
    return static_cast<int>(look.cells.size() / 2);
  });
}
int* web_cells() { return look.cells.data(); }
// Red, green, blue of 256 levels of a colour map: 0 viridis, 1 magma.
ppma::u8* web_colours(int map) {
  static std::array<ppma::u8, 768> table;
  for (std::size_t v = 0; v < 256; ++v)
    std::copy_n(
        ppma::color_of(static_cast<ppma::ColorMap>(map), static_cast<double>(v) / 255).data(), 3,
        table.data() + 3 * v);
  return table.data();
}

// ---- a network that learns (learn.hpp) ----------------------------------------------------------

int web_learn_start(int seed) {
  return guarded([&] {
    learner = std::make_unique<web::Learner>(static_cast<ppma::u64>(seed));
    return 1;
  });
}
// The loss of one step; NaN after an error.
double web_learn_step() {
  const double loss = guarded([] { return running().step() + 1; });
  return last_error.empty() ? loss - 1 : std::nan("");
}
int web_learn_done() {
  return guarded([] { return static_cast<int>(running().done()); });
}
double web_learn_accuracy(int first, int count) {
  return guarded([&] { return running().accuracy(first, count); });
}
// What it sees of image `index` from (row, column), fractions of its height and width; returns the
// side of its maps in tokens.
int web_learn_see(int index, double row, double column) {
  return guarded([&] {
    learnt = running().see(index, row, column);
    as_rgba(learnt.image, learnt_image);
    return static_cast<int>(learnt.alpha.dim(0));
  });
}
int web_learn_name(int index) {
  return guarded([&] { return static_cast<int>(running().name(index)); });
}
ppma::u8* web_learn_image() { return learnt_image.data(); }
// As web_map.
float* web_learn_map(int which) {
  const std::array maps{&learnt.alpha, &learnt.beta, &learnt.mask, &learnt.unmasked,
                        &learnt.masked};
  learnt_map = maps[static_cast<std::size_t>(which)]->to_vector<float>();
  return learnt_map.data();
}
// Sizes: 0 images a step, 1 steps, 2 pixels a side of an image shown, 3 parameters, 4 classes.
int web_learn_size(int which) {
  using web::Learner;
  const std::array<ppma::i64, 5> all{Learner::batch, Learner::steps, Learner::shown_side,
                                     learner ? learner->parameters() : 0, ppma::figure_count};
  return static_cast<int>(all[static_cast<std::size_t>(which)]);
}
const char* web_figure(int which) {
  static std::string name;
  name = ppma::figure_names()[static_cast<std::size_t>(which)];
  return name.c_str();
}

}  // extern "C"
