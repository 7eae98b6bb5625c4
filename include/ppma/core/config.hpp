#pragma once
#include "ppma/core/names_begin.hpp"
// What this translation unit is compiled for. The compiler's own macros (__CUDACC__, _OPENMP,
// __AVX512F__ ...) are tested here and in no other header.

#include <cstdint>

#if !defined(__cpp_exceptions) && !defined(__CUDA_ARCH__)
#error "ppma reports errors as exceptions: compile without -fno-exceptions"
// No such file: that ends the compiler, which would otherwise go on to complain about every throw.
#include <ppma/needs_exceptions>
#endif

#define PPMA_VERSION_MAJOR 0
#define PPMA_VERSION_MINOR 1
#define PPMA_VERSION_PATCH 0

// CUDA: only a translation unit that nvcc (or clang in CUDA mode) compiles sees the device code.
#if defined(__CUDACC__)
#define PPMA_CUDA 1
#define PPMA_HD __host__ __device__
// nvcc hands "GCC unroll" to the host compiler, but does not know it itself.
#pragma nv_diag_suppress 1675
#else
#define PPMA_CUDA 0
#define PPMA_HD
#endif

// NCCL, for networks that several GPUs train (parallel/nccl.hpp): CMake's PPMA_NCCL.
#ifndef PPMA_NCCL
#define PPMA_NCCL 0
#endif
// cuDNN, for dense convolutions on the GPU (kernels/cuda/conv_cudnn.cuh): CMake's PPMA_CUDNN.
#ifndef PPMA_CUDNN
#define PPMA_CUDNN 0
#endif

// True in the pass of nvcc that makes device code.
#if defined(__CUDA_ARCH__)
#define PPMA_ON_DEVICE 1
#else
#define PPMA_ON_DEVICE 0
#endif

// OpenMP: pragmas go through PPMA_OMP, so that a build without OpenMP has no unknown-pragma
// warning.
#if defined(_OPENMP)
#define PPMA_OPENMP 1
#define PPMA_PRAGMA(x) _Pragma(#x)
#define PPMA_OMP(x) PPMA_PRAGMA(omp x)
#else
#define PPMA_OPENMP 0
#define PPMA_OMP(x)
#endif

// SIMD: bytes in the widest vector register that the compiler may use.
#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && defined(__AVX512BW__)
#define PPMA_SIMD_BYTES 64
#define PPMA_INSTRUCTION_SET "avx512"
#elif defined(__AVX2__) && defined(__FMA__)
#define PPMA_SIMD_BYTES 32
#define PPMA_INSTRUCTION_SET "avx2"
#else
#define PPMA_SIMD_BYTES 16
#if defined(__SSE2__)
#define PPMA_INSTRUCTION_SET "sse2"
#elif defined(__ARM_NEON)
#define PPMA_INSTRUCTION_SET "neon"
#else
#define PPMA_INSTRUCTION_SET "generic"
#endif
#endif

// How an asm names a register that holds floats and vectors of them.
#if defined(__x86_64__)
#define PPMA_VECTOR_REGISTER "v"
#elif defined(__aarch64__)
#define PPMA_VECTOR_REGISTER "w"
#endif

#define PPMA_INLINE inline __attribute__((always_inline))
// Compiled once, not wherever it is called: for what costs little to call and much to repeat.
#define PPMA_ONCE __attribute__((noinline))
#define PPMA_COLD __attribute__((noinline, cold))

// Every header has its declarations first and the definitions behind them. PPMA_HEADER_ONLY 1, the
// default: a program sees both. 0: declarations alone, and the program links the compiled library,
// whose sources (src/) each name with PPMA_DEFINES_... the headers that they define.
#ifndef PPMA_HEADER_ONLY
#define PPMA_HEADER_ONLY 1
#endif
#if PPMA_HEADER_ONLY
#define PPMA_API inline
#else
#define PPMA_API
#endif

// Products by Eigen beside our own (kernels/cpu/gemm_eigen.hpp). The compiled library has them; a
// header-only program, which would compile Eigen in each file, asks for them with 1.
#ifndef PPMA_EIGEN
#define PPMA_EIGEN !PPMA_HEADER_ONLY
#endif

// What a header-only program does not need it need not compile (docs/compile-time.md). Set them
// before the first include or with -D, the same in all files that exchange tensors: they are part
// of the namespace's name.
//   PPMA_F64 0: the CPU computes in f32 alone; f64 tensors are made, read and converted, in an
//               operation they are an Error
//   PPMA_GRADIENTS 0: nothing is recorded; requires_grad(true) and backward() are an Error
#ifndef PPMA_F64
#define PPMA_F64 1
#endif
#ifndef PPMA_GRADIENTS
#define PPMA_GRADIENTS 1
#endif
#if !PPMA_HEADER_ONLY && !(PPMA_F64 && PPMA_GRADIENTS)
#error \
    "ppma: the compiled library is whole; PPMA_F64=0 and PPMA_GRADIENTS=0 need PPMA_HEADER_ONLY=1"
#endif

// Loops over registers must be unrolled whole, or the array of registers goes to memory.
#if defined(__clang__)
#define PPMA_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define PPMA_UNROLL _Pragma("GCC unroll 32")
#else
#define PPMA_UNROLL
#endif

// Sanitizers: memory must go back to the system at once, or a use after free hides in the pool.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PPMA_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define PPMA_SANITIZED 1
#endif
#endif
#ifndef PPMA_SANITIZED
#define PPMA_SANITIZED 0
#endif

// Everything lives in ppma::<tag>. Without the tag, objects compiled with different settings would
// share one copy of each inline function, and the linker would silently pick either.
#define PPMA_ABI_NAME2(cuda, omp, simd, without) cuda##_omp##omp##_v##simd##without
#define PPMA_ABI_NAME(cuda, omp, simd, without) PPMA_ABI_NAME2(cuda, omp, simd, without)
#if PPMA_F64 && PPMA_GRADIENTS
#define PPMA_WITHOUT
#elif PPMA_GRADIENTS
#define PPMA_WITHOUT _no_f64
#elif PPMA_F64
#define PPMA_WITHOUT _no_gradients
#else
#define PPMA_WITHOUT _no_f64_no_gradients
#endif
#if !PPMA_HEADER_ONLY
// The library decides all of them; a program that links it may be compiled with other flags.
#define PPMA_ABI compiled
#elif PPMA_CUDA && PPMA_CUDNN
#define PPMA_ABI PPMA_ABI_NAME(cudnn, PPMA_OPENMP, PPMA_SIMD_BYTES, PPMA_WITHOUT)
#elif PPMA_CUDA
#define PPMA_ABI PPMA_ABI_NAME(cuda, PPMA_OPENMP, PPMA_SIMD_BYTES, PPMA_WITHOUT)
#else
#define PPMA_ABI PPMA_ABI_NAME(cpu, PPMA_OPENMP, PPMA_SIMD_BYTES, PPMA_WITHOUT)
#endif

// What depends on the width of a register (kernels/cpu) has it in its names: a program may be
// compiled for wider registers than the library that it links. In a header-only program PPMA_ABI
// says it already; what nvcc compiles of the library has one width, and names without.
#if PPMA_HEADER_ONLY || PPMA_CUDA
#define PPMA_WIDTH
#elif PPMA_SIMD_BYTES == 64
#define PPMA_WIDTH ::inline v64
#elif PPMA_SIMD_BYTES == 32
#define PPMA_WIDTH ::inline v32
#else
#define PPMA_WIDTH ::inline v16
#endif

namespace ppma::inline PPMA_ABI {

/// Sizes and indices.
using i64 = std::int64_t;
/// Bytes, levels of images.
using u8 = std::uint8_t;
/// Words of random bits.
using u32 = std::uint32_t;
/// Seeds and positions in streams.
using u64 = std::uint64_t;

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
