#pragma once
#include "ppma/core/names_begin.hpp"
// An exponential moving average of a network: after every step, e <- d e + (1 - d) x over all its
// tensors, running statistics included. Integer counters are averaged and cut to integers, as the
// published training does.

#include <vector>

#include "ppma/io/element.hpp"

namespace ppma::inline PPMA_ABI {

class Ema {
 public:
  /// Starts from the state as it is: parameters and buffers, whose tensors it goes on watching.
  /// With `warm` the decay of update number t is at most (1 + t) / (10 + t): for short runs, in
  /// which the initial weights must fade quickly.
  PPMA_API Ema(TensorMap state, double decay, bool warm = false);

  /// The decay that the next update uses.
  PPMA_API double next_decay() const;

  /// One step of the average towards the network as it is.
  PPMA_API void update();

  /// The averaged tensors under the network's names; shares memory with the average.
  PPMA_API TensorMap average() const;
  /// How many there were.
  i64 updates() const { return updates_; }
  /// Restores what average() and updates() gave.
  PPMA_API void load(const TensorMap& average, i64 updates);

  /// While one is alive, the network computes with the averaged weights. It exchanges elements in
  /// place: no second network, no copy.
  class InUse {
   public:
    /// Exchanges until it dies.
    explicit InUse(Ema& ema) : ema_(ema) { ema_.exchange(); }
    ~InUse() { ema_.exchange(); }
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;

   private:
    Ema& ema_;
  };

 private:
  PPMA_API void update_on_gpu([[maybe_unused]] double d);
  PPMA_API void exchange();

  TensorMap state_;
  std::vector<Tensor> average_;
  std::vector<i64> sizes_;
  double decay_;
  bool warm_;
  i64 updates_ = 0;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include <algorithm>
#include <type_traits>

#include "ppma/kernels/cpu/ema.hpp"
#include "ppma/kernels/cpu/pieces.hpp"
#include "ppma/kernels/cpu/simd.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/optim/settings.hpp"

namespace ppma::inline PPMA_ABI {

Ema::Ema(TensorMap state, double decay, bool warm)
    : state_(std::move(state)), decay_(decay), warm_(warm) {
  check(decay >= 0 && decay < 1, "EMA: the decay must be in [0, 1), got ", decay);
  for (const auto& entry : state_) {
    check(entry.second.defined(), "EMA: ", entry.first, " is undefined");
    check(entry.second.device() == Device::cpu || entry.second.dtype() == DType::f32 ||
              entry.second.dtype() == DType::f64,
          "EMA: ", entry.first, " is ", entry.second.dtype(),
          "; on the GPU f32 and f64 are averaged");
    average_.push_back(entry.second.clone());
    sizes_.push_back(entry.second.numel());
  }
}

double Ema::next_decay() const {
  const double t = static_cast<double>(updates_);
  return warm_ ? std::min(decay_, (1 + t) / (10 + t)) : decay_;
}

void Ema::update() {
  const double d = next_decay();
  ++updates_;
  update_on_gpu(d);
  kernels::for_pieces(sizes_, [&](std::size_t i, i64 begin, i64 end) {
    if (state_[i].second.device() == Device::cuda) return;
    const Tensor& x = state_[i].second;
    Tensor& e = average_[i];
    visit_any(x.dtype(), [&](auto t) {
      using T = decltype(t);
      const T* from = x.template data<T>();
      T* to = e.template data<T>();
      if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>)
        kernels::average_into(Cpu{}, end - begin, d, from + begin, to + begin);
      else
        for (i64 k = begin; k < end; ++k)
          to[k] = static_cast<T>(static_cast<float>(d * static_cast<double>(to[k]) +
                                                    (1 - d) * static_cast<double>(from[k])));
    });
  });
}

TensorMap Ema::average() const {
  TensorMap out;
  for (std::size_t i = 0; i < state_.size(); ++i) out.emplace_back(state_[i].first, average_[i]);
  return out;
}

void Ema::load(const TensorMap& average, i64 updates) {
  for (std::size_t i = 0; i < state_.size(); ++i) {
    const Tensor* t = find(average, state_[i].first);
    check(t != nullptr && t->shape() == average_[i].shape(), "EMA: the saved average has no ",
          state_[i].first, " of shape ", average_[i].shape());
    average_[i].copy_from(*t);
  }
  updates_ = updates;
}

void Ema::update_on_gpu([[maybe_unused]] double d) {
#if PPMA_CUDA
  std::vector<kernels::TableEntry> entries;
  for (std::size_t i = 0; i < state_.size(); ++i)
    if (state_[i].second.device() == Device::cuda) entries.push_back({i, 0, 0});
  kernels::for_dtypes([&](auto zero) {
    using T = decltype(zero);
    kernels::for_tables<T, 2>(
        entries, sizes_,
        [&](std::size_t i, auto& table, int slot) {
          return detail::put_arrays<T>(table, slot, state_[i].second, average_[i],
                                       state_[i].second);
        },
        [&](const auto& table, unsigned blocks) {
          kernels::detail::average_pieces<<<blocks, 256, 0, cuda::stream()>>>(
              table, static_cast<T>(d), static_cast<T>(1 - d));
          cuda::launched("EMA");
        });
  });
#endif
}

void Ema::exchange() {
  for (std::size_t i = 0; i < state_.size(); ++i) {
    if (state_[i].second.device() == Device::cuda) {
      const Tensor before = state_[i].second.clone();
      state_[i].second.copy_from(average_[i]);
      average_[i].copy_from(before);
      continue;
    }
    u8* a = static_cast<u8*>(state_[i].second.raw());
    std::swap_ranges(a, a + state_[i].second.bytes(), static_cast<u8*>(average_[i].raw()));
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
