#pragma once
#include "ppma/core/names_begin.hpp"
// The group behind parallel/nccl.hpp.

#include <nccl.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "ppma/core/cuda.cuh"
#include "ppma/parallel/tcp.hpp"

namespace ppma::inline PPMA_ABI {

class NcclGroup : public std::enable_shared_from_this<NcclGroup> {
 public:
  explicit NcclGroup(const Launch& launch) : launch_(launch), tcp_(connect_tcp(launch, 1)) {
    // Its kernels go first: one that has begun keeps multiprocessors until its partner begins too.
    int low = 0, high = 0;
    require(cudaDeviceGetStreamPriorityRange(&low, &high));
    require(cudaStreamCreateWithPriority(&own_, cudaStreamNonBlocking, high));
    require(cudaEventCreateWithFlags(&reached_, cudaEventDisableTiming));
    // A communicator is used by one graph or stream at a time (stream()). Else NCCL adds nodes to a
    // graph, beside each of its kernels, that order it among others.
    setenv("NCCL_GRAPH_MIXING_SUPPORT", "0", 0);
    for (ncclComm_t& comm : comms_) {
      ncclUniqueId id{};
      if (launch.rank == 0) require(ncclGetUniqueId(&id));
      Tensor bytes = Tensor::empty({static_cast<i64>(sizeof id)}, DType::uint8);
      copy_bytes(bytes.raw(), Device::cpu, &id, Device::cpu, bytes.bytes());
      tcp_[0].broadcast(bytes, 0);
      copy_bytes(&id, Device::cpu, std::as_const(bytes).raw(), Device::cpu, bytes.bytes());
      require(ncclCommInitRank(&comm, static_cast<int>(launch.size), id,
                               static_cast<int>(launch.rank)));
    }
    watch_ = std::thread([this] { watch(); });
  }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  ~NcclGroup() {
    leaving_ = true;
    tcp_[0].abort();
    watch_.join();
    end();
    cudaEventDestroy(reached_);
    cudaStreamDestroy(own_);
  }

  /// They own the group together.
  std::vector<Communicator> communicators() { return {communicator(0), communicator(1)}; }

 private:
  Communicator communicator(int which) {
    Communicator c;
    c.rank = launch_.rank, c.size = launch_.size, c.capturable = true;
    const auto self = shared_from_this();
    const auto all_reduce = [self, this, which](ncclRedOp_t operation) {
      return [self, this, which, operation](Tensor& t) {
        through_gpu(t, [&](Tensor& there) {
          const cudaStream_t on = stream(which);
          require(ncclAllReduce(std::as_const(there).raw(), there.raw(),
                                static_cast<std::size_t>(there.numel()), type_of(there.dtype()),
                                operation, alive(which), on));
        });
      };
    };
    c.all_reduce_sum = all_reduce(ncclSum);
    c.broadcast = [self, this, which](Tensor& t, i64 root) {
      through_gpu(t, [&](Tensor& there) {
        const cudaStream_t on = stream(which);
        require(ncclBroadcast(std::as_const(there).raw(), there.raw(),
                              static_cast<std::size_t>(there.numel()), type_of(there.dtype()),
                              static_cast<int>(root), alive(which), on));
      });
    };
    c.barrier = [sum = c.all_reduce_sum] {
      Tensor t = Tensor::zeros({1}, DType::f32, Device::cuda);
      sum(t);
      cuda::synchronize();
    };
    c.abort = [self] { self->end(); };
    if (which == 1) {
      c.all_reduce_mean = all_reduce(ncclAvg);
      c.join = [self, this] {
        alive(1);
        require(cudaEventRecord(reached_, own_));
        require(cudaStreamWaitEvent(cuda::stream(), reached_, 0));
      };
    }
    return c;
  }

  // The stream of a communicator; its own waits for what has been computed so far. Where graphs use
  // communicators, none of them must run when something else does.
  cudaStream_t stream(int which) {
    if (cuda::capturing())
      in_graphs_ = true;
    else if (in_graphs_)
      require(cudaStreamSynchronize(cuda::stream()));
    if (which == 0) return cuda::stream();
    require(cudaEventRecord(reached_, cuda::stream()));
    require(cudaStreamWaitEvent(own_, reached_, 0));
    return own_;
  }

  template <class F>
  void through_gpu(Tensor& t, F f) {
    if (t.device() == Device::cuda) return f(t);
    Tensor there = t.to(Device::cuda);
    f(there);
    t.copy_from(there);
    alive(0);  // a sum that was aborted is none
  }

  static ncclDataType_t type_of(DType dtype) {
    switch (dtype) {
      case DType::f32:
        return ncclFloat32;
      case DType::f64:
        return ncclFloat64;
      case DType::bf16:
        return ncclBfloat16;
      case DType::int64:
        return ncclInt64;
      case DType::uint8:
        return ncclUint8;
    }
    return ncclFloat32;
  }

  // All wait to hear from another, and nobody speaks: that ends when somebody's connection does.
  void watch() {
    const std::string why = [this]() -> std::string {
      try {
        Tensor nothing = Tensor::zeros({1});
        if (launch_.rank == 0)
          tcp_[0].all_reduce_sum(nothing);
        else
          tcp_[0].broadcast(nothing, 0);
        return "a process has left";
      } catch (const Error& e) {
        return e.what();
      }
    }();
    if (leaving_) return;
    {
      const std::lock_guard lock(mutex_);
      why_ = why;
    }
    end();
  }

  // An abort waits for the graphs that the communicator is captured in. These end when the kernels
  // of both have been told to, and when their owner, who asks alive(), has learnt of it: so both
  // are aborted at once, and without the lock.
  void end() {
    ncclComm_t ending[2];
    {
      const std::lock_guard lock(mutex_);
      for (int i = 0; i < 2; ++i) ending[i] = std::exchange(comms_[i], nullptr);
    }
    std::thread other;
    if (ending[1] != nullptr) other = std::thread([comm = ending[1]] { ncclCommAbort(comm); });
    if (ending[0] != nullptr) ncclCommAbort(ending[0]);
    if (other.joinable()) other.join();
  }
  ncclComm_t alive(int which) {
    const std::lock_guard lock(mutex_);
    check(comms_[which] != nullptr,
          why_.empty() ? std::string("parallel: the group has ended") : why_);
    return comms_[which];
  }
  static void require(cudaError_t status) { cuda::require(status, "NCCL's streams"); }
  static void require(ncclResult_t status) {
    check(status == ncclSuccess, "parallel: NCCL: ", ncclGetErrorString(status));
  }

  Launch launch_;
  std::vector<Communicator> tcp_;
  ncclComm_t comms_[2] = {nullptr, nullptr};
  cudaStream_t own_ = nullptr;
  cudaEvent_t reached_ = nullptr;
  bool in_graphs_ = false;
  std::mutex mutex_;
  std::string why_;
  std::atomic<bool> leaving_{false};
  std::thread watch_;
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
