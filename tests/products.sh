#!/usr/bin/env bash
# Products by Eigen where the main test program does not have them: header-only, without AVX, by a BLAS; PPMA_GEMM; a
# program that has an Eigen of its own beside the compiled library: products.sh ROOT
#   PPMA_BUILT    a build folder, whose library is linked (without: header-only programs alone)
set -u
root=$1 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
. "$root/tests/tries.sh"
include="-std=c++20 -I$root/include -I$root/tests"
catch_library=$([[ -e /usr/include/catch2/catch_all.hpp ]] && echo -lCatch2)
if [[ ! -e /usr/include/eigen3/Eigen/Core ]]; then
  skip "no Eigen here (Debian: libeigen3-dev)"
  finish
  exit
fi

main=${PPMA_BUILT:-}/tests/CMakeFiles/ppma_test_objects.dir/main.cpp.o  # a quarter of a minute, already spent
if [[ -f $main ]]; then cp "$main" main.o; else g++ $include -O0 -c "$root/tests/main.cpp" -o main.o || exit 1; fi
products() {  # flags; libraries
  g++ $include -O1 -fopenmp -DPPMA_EIGEN=1 $1 "$root/tests/kernels/gemm_test.cpp" main.o $catch_library ${2:-} -o products &&
    OPENBLAS_NUM_THREADS=1 ./products
}
try "header-only with Eigen's products, no AVX" products ""
if echo 'int main() {}' | g++ -x c++ - -lopenblas -o with_blas 2> /dev/null; then
  try "header-only, Eigen's products by OpenBLAS" products -DEIGEN_USE_BLAS -lopenblas
else skip "no OpenBLAS here (Debian: libopenblas-dev)"; fi

# A product by ppma and one by the program's own Eigen, which is aligned otherwise than the library's.
cat > both.cpp << 'CPP'
#define EIGEN_MAX_ALIGN_BYTES 0
#include <cstdio>
#include <ppma/eigen.hpp>
#include <ppma/ops/matmul.hpp>
int main() try {
  ppma::Rng rng(1);
  for (const ppma::DType t : {ppma::DType::f32, ppma::DType::f64}) {
    const ppma::Tensor a = ppma::Tensor::randn({150, 70}, rng, 1, t), b = ppma::Tensor::randn({70, 90}, rng, 1, t),
                       c = ppma::matmul(a, b);
    const auto differ = [&](auto zero, double tolerance) {
      using T = decltype(zero);
      const Eigen::MatrixX<T> own = ppma::as_matrix<T>(a) * ppma::as_matrix<T>(b);
      return (own - ppma::as_matrix<T>(c)).cwiseAbs().maxCoeff() > tolerance;
    };
    if (t == ppma::DType::f32 ? differ(0.f, 1e-4) : differ(0.0, 1e-12)) return 1;
  }
  std::puts("equal");
} catch (const ppma::Error& e) {
  std::puts(e.what());
  return 2;
}
CPP
says() {  # word for PPMA_GEMM, what the program must print
  local printed; printed=$(PPMA_GEMM=$1 ./both)
  echo "$printed"
  [[ $printed == *"$2"* ]]
}
if [[ -n ${PPMA_BUILT:-} ]]; then
  library=$PPMA_BUILT/src/libppma.a
  openmp=$(nm -u "$library" | grep -q GOMP_ && echo -fopenmp)
  both() { g++ $include -O1 -DPPMA_HEADER_ONLY=0 both.cpp $openmp "$library" -pthread -o both && says "" equal; }
  try "a program with an Eigen of its own" both
  try "PPMA_GEMM=own" says own equal
  try "PPMA_GEMM=eigen" says eigen equal
  try "PPMA_GEMM=mkl is refused" says mkl 'PPMA_GEMM=mkl in the environment: products are computed by "own" kernels or by "eigen"'
  no_eigen() { ! nm "$library" | grep -E ' [A-Zu] _ZN?K?[0-9]*5Eigen'; }
  try "the library shows no function of Eigen's under Eigen's name" no_eigen
fi
cat > one.cpp << 'CPP'
#include <cstdio>
#include <ppma/ops/matmul.hpp>
int main() try {
  return ppma::matmul(ppma::Tensor::ones({64, 64}), ppma::Tensor::ones({64, 64})).dim(0) != 64;
} catch (const ppma::Error& e) {
  std::puts(e.what());
  return 2;
}
CPP
without() { g++ $include -O0 one.cpp -o both && says eigen "compiled without Eigen's products"; }
try "PPMA_GEMM=eigen in a header-only program without them" without

finish
