// What every segmentation head must do: those of SegmentationHeads are tried, one after the other.
#include "ppma/heads/segmentation_heads.hpp"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "catch.hpp"
#include "ppma/heads/segmentor_json.hpp"
#include "ppma/nn/state_dict.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

template <class Head>
void check_head() {
  SegmentorConfig<Head> c = segmentor_nano<Head>(3);
  CHECK(segmentor_from_json<Head>(segmentor_to_json(c)) == c);
  CHECK(head_of(segmentor_to_json(c)) == Head::name);
  Segmentor<Head> model(c, 1);
  Rng rng(2);
  // 40 / 32 is no whole number
  const Tensor images = Tensor::randn({2, 3, 40, 72}, rng);
  Tensor labels = Tensor::ones({2, 40, 72}, DType::int64);
  Context training{true, Rng(3)};
  CHECK(model.forward(images, training).shape() == Shape{2, 40, 72, 3});
  const SegmentationLoss l = model.loss(images, labels, training);
  CHECK(l.auxiliary.defined() == detail::HasAuxiliary<Head>);
  l.total.backward();
  for (const Field& f : named_parameters(model)) {
    INFO(f.name);
    CHECK(f.tensor.grad().defined());
  }
  labels.copy_from(Tensor::full({2, 40, 72}, 255));
  CHECK(model.loss(images, labels, training).total.item() == 0);
  // Every number has limits, and no number may be -1.
  i64 numbers = 0;
  const auto check_limits = [&]<class T>(const char* key, T& value, const auto&... limits) {
    if constexpr (std::is_arithmetic_v<T> && sizeof...(limits) > 0) {
      const T before = std::exchange(value, T(-1));
      CHECK(says([&] { check_config(c); }, str("config: ", key, " is -1; it must be ")));
      value = before;
      ++numbers;
    }
  };
  Head::Config::fields(c.head, check_limits);
  CHECK(numbers > 0);
}

}  // namespace

TEST_CASE("every segmentation head: shapes, gradients, ignored pixels, configurations", "[heads]") {
  const std::vector<std::string> names = SegmentationHeads::names();
  CHECK(std::set<std::string>(names.begin(), names.end()).size() == names.size());
  for (const std::string& name : names) {
    INFO(name);
    with_segmentation_head(name, []<class Head>() { check_head<Head>(); });
  }
}
