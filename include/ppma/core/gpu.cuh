#pragma once
#include "ppma/core/names_begin.hpp"
// The definitions of core/gpu.hpp where there is CUDA.

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::cuda {

bool compiled() { return true; }

bool available() {
  static const bool there = [] {
    int count = 0;
    const bool ok = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
    cudaGetLastError();
    return ok;
  }();
  return there;
}

bool& allow_tf32() {
  static bool allowed = false;
  return allowed;
}

void synchronize() { require(cudaStreamSynchronize(stream()), "a kernel failed"); }

int device_number() {
  int id = 0;
  require(cudaGetDevice(&id), "no GPU");
  return id;
}

void use_device(int number) { require(cudaSetDevice(number), "a GPU of this number"); }

double exponentials_per_second() {
  int kilohertz = 0;
  require(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, device_number()),
          "clock rate of the GPU");
  return 16e3 * kilohertz * device().multiProcessorCount;
}

struct Timer::Events {
  cudaEvent_t begin = nullptr, end = nullptr;
  Events() {
    require(cudaEventCreate(&begin), "event");
    require(cudaEventCreate(&end), "event");
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  ~Events() {
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
};

Timer::Timer() : events_(std::make_unique<Events>()) {}
Timer::~Timer() = default;
void Timer::start() { require(cudaEventRecord(events_->begin, stream()), "event"); }
double Timer::stop() {
  require(cudaEventRecord(events_->end, stream()), "event");
  require(cudaEventSynchronize(events_->end), "a kernel failed");
  float ms = 0;
  require(cudaEventElapsedTime(&ms, events_->begin, events_->end), "event");
  return static_cast<double>(ms);
}

}  // namespace ppma::inline PPMA_ABI::cuda

#include "ppma/core/names_end.hpp"
