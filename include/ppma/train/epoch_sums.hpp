#pragma once
#include "ppma/core/names_begin.hpp"
// What an epoch of training adds up, batch by batch, and reports.

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/train/task.hpp"

namespace ppma::inline PPMA_ABI {

/// Means of this epoch so far, by the weights of its batches; of those with a finite loss.
struct StepReport {
  i64 epoch = 0, batch = 0, batches = 0;  // batch counts from 1
  i64 images = 0;                         // seen in this epoch
  double loss = 0;
  std::vector<std::pair<std::string, double>> parts{};  // of the loss
  double rate = 0, gradient_norm = 0;                   // of the last step
  double waited = 0;                                    // seconds for batches, in this epoch
};

/// A step that the optimiser did not take, since its loss or gradient is not finite.
struct SkippedStep {
  i64 epoch = 0, batch = 0;  // batch counts from 1
  std::string what;          // "loss" or "gradient's norm"
  double value = 0;
  /// What is not finite first in that batch: a module's output, or the gradient of a parameter.
  std::string where;
  i64 in_a_row = 0;  // with those before it

  /// All of it in a line.
  PPMA_API std::string text() const;
};

namespace detail {

struct EpochSums {
  i64 epoch = 0, batches = 0;
  i64 begun = 0, images = 0, number = 0, steps = 0, skipped = 0, pending = 0;
  double weight = 0, loss_sum = 0, rate_sum = 0, rate = 0, norm = 0;
  double seconds = 0;                                  // before the epoch last rested
  double waited = 0;                                   // seconds for batches
  std::vector<std::pair<std::string, double>> sums{};  // of the loss's parts
  std::optional<SkippedStep> bad{};  // of the step whose batches are being added up

  double mean(double sum) const { return weight == 0 ? 0 : sum / weight; }
  PPMA_API std::vector<std::pair<std::string, double>> means() const;

  /// A batch of so many rows, whose loss and its parts are `values`; `stepped`: with a step of the
  /// optimiser, or one that is skipped. One whose loss is not finite counts in no mean.
  PPMA_API void add(const Loss& loss, const std::vector<double>& values, i64 rows, double its_rate,
                    bool stepped);
  PPMA_API StepReport report() const;

  /// All of an epoch that rests between two steps, for the metadata of a file. Names of a loss's
  /// parts have no spaces.
  PPMA_API std::string text() const;
  /// From that text. Error: it is none; `where` is what it begins with.
  PPMA_API static EpochSums of_text(const std::string& text, const std::string& where);
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <cstdlib>
#include <sstream>

#include "ppma/core/float_bits.hpp"
#include "ppma/train/position.hpp"

namespace ppma::inline PPMA_ABI {

std::string SkippedStep::text() const {
  return str("epoch ", epoch + 1, ", batch ", batch, ": the ", what, " is ", value,
             where.empty() ? "" : ", " + where + " is not finite");
}

namespace detail {

std::vector<std::pair<std::string, double>> EpochSums::means() const {
  auto all = sums;
  for (auto& part : all) part.second = mean(part.second);
  return all;
}

void EpochSums::add(const Loss& loss, const std::vector<double>& values, i64 rows, double its_rate,
                    bool stepped) {
  ++number, images += rows;
  rate = its_rate;
  if (stepped) ++steps, rate_sum += its_rate;
  if (!is_finite(values[0])) return;
  weight += loss.weight, loss_sum += values[0] * loss.weight;
  if (sums.empty())
    for (const auto& part : loss.parts) sums.emplace_back(part.first, 0.0);
  check(sums.size() == loss.parts.size(), "training: the loss has ", loss.parts.size(),
        " parts, at first it had ", sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i].second += values[i + 1] * loss.weight;
}

StepReport EpochSums::report() const {
  return {epoch, number, batches, images, mean(loss_sum), means(), rate, norm, waited};
}

std::string EpochSums::text() const {
  std::string t = str(epoch, " ", batches, " ", begun, " ", images, " ", steps, " ", skipped);
  for (const double x : {weight, loss_sum, rate_sum, rate, norm, seconds, waited})
    t += " " + number_text(x);
  for (const auto& [name, sum] : sums) t += " " + name + " " + number_text(sum);
  return t;
}

EpochSums EpochSums::of_text(const std::string& text, const std::string& where) {
  std::istringstream words(text);
  std::string word;
  const auto number = [&] {
    char* end = nullptr;
    words >> word;
    const double x = std::strtod(word.c_str(), &end);
    check(!words.fail() && *end == 0, where, ": the epoch so far is not told by \"", text,
          "\"; the file is damaged");
    return x;
  };
  EpochSums s;
  for (i64* n : {&s.epoch, &s.batches, &s.begun, &s.images, &s.steps, &s.skipped})
    *n = static_cast<i64>(number());
  for (double* x : {&s.weight, &s.loss_sum, &s.rate_sum, &s.rate, &s.norm, &s.seconds, &s.waited})
    *x = number();
  for (std::string name; words >> name;) s.sums.emplace_back(name, number());
  s.number = s.begun;
  check(s.begun > 0 && s.begun <= s.batches, where, ": the epoch so far has ", s.begun, " of ",
        s.batches, " batches; the file is damaged");
  return s;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
