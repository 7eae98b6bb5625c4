#pragma once
// ppma predict: a trained network on image files.

#include <memory>

#include "data.hpp"
#include "dense_network.hpp"
#include "ppma/commands/dense_predict.hpp"
#include "ppma/commands/predict.hpp"
#include "predict_files.hpp"

namespace tool {

/// Error: an image could not be read.
template <class Image>
void check_all_read(const std::vector<Image>& images) {
  const auto failed = std::count_if(images.begin(), images.end(),
                                    [](const Image& image) { return !image.error.empty(); });
  check(failed == 0, "predict: ", failed, " of ", images.size(),
        " images could not be read; they are named above");
}

/// A record of an image that could not be read.
inline Json error_record(const std::string& path, const std::string& error) {
  return {{"image", shown_name(path)}, {"error", shown(error)}};
}

/// Prints what is said of an image as soon as it is known; JSON in the end.
class ShownPrediction : public PredictObserver {
 public:
  explicit ShownPrediction(const PredictFormats& formats) : formats_(formats) {
    if (formats.csv) print_csv({"image", "rank", "class", "name", "probability"});
  }
  void note(const std::string& text) override { tool::note(text); }
  void image(const PredictedImage& one) override {
    const std::string path = shown_name(one.path);
    if (!one.error.empty()) {
      all_.push_back(error_record(one.path, one.error));
      return;
    }
    Json best = Json::array();
    if (formats_.text()) std::printf("%s\n", path.c_str());
    for (std::size_t k = 0; k < one.top.size(); ++k) {
      const PredictedClass& c = one.top[k];
      const std::string name = shown_name(c.name);
      best.push_back({{"class", c.label}, {"name", name}, {"probability", c.probability}});
      if (formats_.csv)
        print_csv({path, str(k + 1), str(c.label), name, csv_number(c.probability)});
      if (formats_.text()) std::printf("  %6.2f %%  %s\n", 100 * c.probability, name.c_str());
    }
    all_.push_back({{"image", path}, {"top", best}});
  }
  const Json& all() const { return all_; }

 private:
  PredictFormats formats_;
  Json all_ = Json::array();
};

/// The same of a segmentor or detector.
template <class Image>
class ShownDensePrediction : public DensePredictObserver<Image> {
 public:
  explicit ShownDensePrediction(const PredictFormats& formats) : formats_(formats) {
    if (!formats.csv) return;
    if constexpr (std::is_same_v<Image, SegmentedImage>)
      print_csv({"image", "image_id", "class", "name", "pixels", "share"});
    else
      print_csv({"image", "image_id", "class", "name", "score", "x1", "y1", "x2", "y2"});
  }
  void note(const std::string& text) override { tool::note(text); }
  void image(const Image& one) override {
    if (!one.error.empty()) {
      all_.push_back(error_record(one.path, one.error));
      return;
    }
    const std::string path = shown_name(one.path);
    if (formats_.text())
      std::printf("%s%s%s\n", path.c_str(), formats_.png ? " -> " : "",
                  shown_name(one.picture).c_str());
    Json record{{"image", path}, {"image_id", one.image_id}};
    if (formats_.png) record["picture"] = shown_name(one.picture);
    put(one, path, record);
    all_.push_back(record);
  }
  const Json& all() const { return all_; }

 private:
  void put(const SegmentedImage& one, const std::string& path, Json& record) const {
    if (formats_.png) record["labels"] = shown_name(one.labels);
    Json shares;
    for (const ClassShare& c : one.shares) {
      shares[c.name] = c.share;
      const std::string name = shown_name(c.name);
      if (formats_.csv)
        print_csv(
            {path, str(one.image_id), str(c.label), name, str(c.pixels), csv_number(c.share)});
      if (formats_.text()) std::printf("  %5.1f %%  %s\n", 100 * c.share, name.c_str());
    }
    record["shares"] = shares;
  }
  void put(const DetectedImage& one, const std::string& path, Json& record) const {
    Json objects = Json::array();
    for (const FoundObject& f : one.objects) {
      const std::string name = shown_name(f.name);
      if (formats_.csv)
        print_csv({path, str(one.image_id), str(f.label), name, csv_number(f.score),
                   csv_number(f.box.x1), csv_number(f.box.y1), csv_number(f.box.x2),
                   csv_number(f.box.y2)});
      if (formats_.text())
        std::printf("  %5.1f %%  %-16s %.0f %.0f %.0f %.0f\n", 100 * f.score, name.c_str(),
                    static_cast<double>(f.box.x1), static_cast<double>(f.box.y1),
                    static_cast<double>(f.box.x2), static_cast<double>(f.box.y2));
      objects.push_back({{"name", f.name},
                         {"score", f.score},
                         {"box", {f.box.x1, f.box.y1, f.box.x2, f.box.y2}}});
    }
    record["objects"] = objects;
  }

  PredictFormats formats_;
  Json all_ = Json::array();
};

inline void predict(const PredictOptions& o, const PredictFormats& formats) {
  ShownPrediction shown(formats);
  const std::vector<PredictedImage> images = predict_classes(o, shown);
  if (formats.json) print_json(shown.all());
  check_all_read(images);
}

/// predict_segments() or predict_objects().
template <class Image>
void predict_dense(const DensePredictOptions& o, const PredictFormats& formats,
                   std::vector<Image> (*work)(const DensePredictOptions&,
                                              DensePredictObserver<Image>&)) {
  ShownDensePrediction<Image> shown(formats);
  const std::vector<Image> images = work(o, shown);
  if (formats.json) print_json(shown.all());
  check_all_read(images);
}

inline void add_predict(CLI::App& app) {
  auto o = std::make_shared<PredictOptions>();
  auto detect = std::make_shared<DensePredictOptions>();
  auto asked = std::make_shared<std::vector<std::string>>();  // formats
  auto json = std::make_shared<bool>(false);
  auto task = std::make_shared<std::string>("classify");
  auto* c = app.add_subcommand("predict", "Names what is on images, or finds it");
  add_task(*c, *task, o->network,
           "classify: name the image; segment: name every pixel; detect: find objects. ");
  const char *const both = "With --task segment and detect", *const segment = "With --task segment";
  c->add_option("--out", detect->out, "folder for pictures and results")
      ->check(some_text())
      ->capture_default_str()
      ->group(both);
  c->add_option("--gt", detect->gt,
                "COCO annotations, of which results take the images' numbers, by file name, and "
                "the classes'; images are then read as stored (--no-exif), as annotations count "
                "pixels; default: numbers from 1")
      ->check(CLI::ExistingFile)
      ->group(both);
  c->add_option("--classes", detect->classes,
                "file with the classes' names, one a line; default: what the weights file says")
      ->check(CLI::ExistingFile)
      ->group(both);
  c->add_option("--longer", detect->longer,
                "images: longer side at most; default: as in training, or as published")
      ->check(in_range(i64{1}, most_size))
      ->group(both);
  c->add_option("--shorter", detect->shorter,
                "images: shorter side, with the aspect kept; the same")
      ->check(in_range(i64{1}, most_size))
      ->group(both);
  c->add_option("--least-score", detect->least_score, "what is shown")
      ->check(in_range(0.0, 1.0))
      ->capture_default_str()
      ->group("With --task detect");
  c->add_option("--crop", detect->crop,
                "side of windows that slide over the image; 0: the image at once")
      ->check(in_range(i64{0}, i64{8192}))
      ->capture_default_str()
      ->group(segment);
  c->add_option("--stride", detect->stride, "from one window to the next; 0: two thirds of --crop")
      ->check(in_range(i64{0}, i64{8192}))
      ->capture_default_str()
      ->group(segment);
  c->add_option("--scales", detect->scales, "sizes whose results are averaged, such as 0.75,1,1.25")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(in_range(0.1, 4.0))
      ->group(segment);
  c->add_flag("--flip", detect->flip, "each size also flipped")->group(segment);
  add_no_exif(*c, o->no_exif);
  c->add_option(
       "IMAGE", o->images,
       "PNG, JPEG, BMP, PPM or PGM files, folders with all images below them (such as a video's "
       "frames), or patterns in quotes: 'DIR/**/*.jpg', 'a{1..9}.png'; one that cannot be read is "
       "named, and the others go on")
      ->required();
  add_network(*c, o->network);
  c->add_option("--top", o->top, "how many classes to name")
      ->check(in_range(i64{1}, i64{1000000}))
      ->capture_default_str()
      ->group("With --task classify");
  add_compute(*c, o->compute);
  add_threads(*c);
  c->add_flag("--json", *json, "a JSON list instead of text");
  add_format(*c, *asked);
  c->callback([o, detect, task, asked, json, c] {
    refuse_others(*c, *task);
    const PredictFormats formats = PredictFormats::of(*asked, *json, *task);
    if (*task == "classify") return predict(*o, formats);
    detect->compute = o->compute, detect->network = o->network, detect->images = o->images,
    detect->no_exif = o->no_exif, detect->pictures = formats.png, detect->results = formats.coco;
    *task == "segment" ? predict_dense(*detect, formats, predict_segments)
                       : predict_dense(*detect, formats, predict_objects);
  });
}

}  // namespace tool
