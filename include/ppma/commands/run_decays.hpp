#pragma once
#include "ppma/core/names_begin.hpp"
// OUT/history: a network's decays on a few test images after each evaluation, of which at most
// thirty are kept, evenly. A run that goes on adds to them.
//
//   OUT/history/images.png    the images
//   OUT/history/epoch_N.png   beside them alpha, beta and a mask, after N epochs

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "ppma/commands/numbers.hpp"
#include "ppma/data/augment.hpp"
#include "ppma/data/detection.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/run_folder.hpp"
#include "ppma/vis/decay_history.hpp"
#include "ppma/vis/report.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class RunDecays {
 public:
  static constexpr i64 most_images = 4;
  static constexpr std::size_t most_epochs = 30;

  /// Of the network that `backbone` is of, which must outlive it. image(i) is an image of the test
  /// set, uint8 (H,W,3), as the network takes it.
  template <class F>
  RunDecays(const Backbone& backbone, MaskKind kind, const Normalization& normalization,
            const Placement& at, i64 test_images, F image)
      : backbone_(backbone), kind_(kind), normalization_(normalization), at_(at) {
    if (kind != MaskKind::polyline && kind != MaskKind::shared && kind != MaskKind::v2h) return;
    const i64 n = std::min(most_images, test_images), step = test_images / std::max(i64{1}, n);
    // Classes of generated sets take turns: so images of several.
    for (i64 k = 0; k < n; ++k) images_.push_back(image(k * step + k % step));
  }

  /// Draws them as they are after so many epochs. A network without learnt decays has none.
  void add(const RunFolder& folder, i64 epoch) const {
    std::vector<DecayMaps> maps;
    for (const Tensor& image : images_) {
      maps.push_back(decay_maps(backbone_, kind_, at_(normalize(image, normalization_))));
      if (!maps.back().alpha.defined()) return;
    }
    if (maps.empty()) return;
    write_png(folder.file_in("history", "images.png"), decay_images(images_, maps).image());
    write_png(file(folder, epoch), decay_picture(maps).image());
    std::vector<i64> kept;
    for (const i64 e : epochs(folder)) {  // of later ones the run went back behind them
      if (e <= epoch)
        kept.push_back(e);
      else
        std::filesystem::remove(file(folder, e));
    }
    for (const i64 e : thinned_epochs(kept, most_epochs)) std::filesystem::remove(file(folder, e));
  }

  /// Those that are kept, for the page about the run.
  static ReportDecays kept(const RunFolder& folder) {
    ReportDecays d;
    std::error_code absent;
    if (!std::filesystem::exists(folder.path("history/images.png"), absent)) return d;
    d.images = read_file(folder.path("history/images.png"));
    for (const i64 e : epochs(folder)) d.epochs.emplace_back(e, read_file(file(folder, e)));
    return d;
  }

 private:
  static std::string file(const RunFolder& folder, i64 epoch) {
    return folder.file_in("history", str("epoch_", epoch, ".png"));
  }
  /// In their order.
  static std::vector<i64> epochs(const RunFolder& folder) {
    std::vector<i64> all;
    std::error_code absent;
    for (std::filesystem::directory_iterator it(folder.path("history"), absent), end;
         !absent && it != end; it.increment(absent)) {
      const std::string name = it->path().filename().string();
      i64 epoch = 0;
      if (name.starts_with("epoch_") && name.ends_with(".png") &&
          parse_number(name.substr(6, name.size() - 10), epoch))
        all.push_back(epoch);
    }
    std::sort(all.begin(), all.end());
    return all;
  }

  const Backbone& backbone_;
  MaskKind kind_;
  Normalization normalization_;
  Placement at_;
  std::vector<Tensor> images_{};
};

/// An image brought to the size that a segmentor or detector sees, with its aspect kept.
inline Tensor dense_sized(const Tensor& image, i64 longer, i64 shorter) {
  const auto size = keep_aspect(image.dim(0), image.dim(1), longer, shorter);
  return resize_antialiased(image, std::max(least_size, size[0]), std::max(least_size, size[1]));
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
