# The targets, in a build tree or installed:
#   ppma::ppma      the headers with their definitions, C++20, threads, OpenMP where it is found
#   ppma::compiled  the same headers, declarations alone, and the library that holds the definitions
#   ppma::compiled_cuda  with PPMA_CUDA: ppma::compiled with code for GPUs; programs are compiled as for ppma::compiled
#   ppma::native    opt-in: compile for this machine's processor
#   ppma::cuda      with PPMA_CUDA: the headers and the CUDA Toolkit's libraries
#   ppma_enable_cuda(target)  compiles a target's .cpp files as CUDA
if(TARGET ppma::ppma)
  return()
endif()

# Installed targets are IMPORTED, so that a library which links one can be installed and exported itself.
macro(ppma_interface name)
  if(ppma_installed)
    add_library(ppma::${name} INTERFACE IMPORTED)
    set(ppma_${name}_target ppma::${name})
  else()
    set(ppma_${name}_target ${ARGN})
    add_library(${ARGN} INTERFACE)
    set_target_properties(${ARGN} PROPERTIES EXPORT_NAME ${name})
    add_library(ppma::${name} ALIAS ${ARGN})
  endif()
endmacro()

set(ppma_installed OFF)
if(EXISTS ${CMAKE_CURRENT_LIST_DIR}/../include/ppma)
  get_filename_component(ppma_include ${CMAKE_CURRENT_LIST_DIR}/../include ABSOLUTE)
else()  # <prefix>/lib/<arch>/cmake/ppma
  set(ppma_installed ON)
  find_path(ppma_include ppma/core/config.hpp HINTS ${CMAKE_CURRENT_LIST_DIR}/../../../include
            ${CMAKE_CURRENT_LIST_DIR}/../../../../include NO_CACHE REQUIRED)
endif()

ppma_interface(ppma ppma)
target_compile_features(${ppma_ppma_target} INTERFACE cxx_std_20)
target_include_directories(${ppma_ppma_target} INTERFACE $<BUILD_INTERFACE:${ppma_include}>)
if(NOT ppma_installed)
  target_include_directories(ppma INTERFACE $<INSTALL_INTERFACE:include>)
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
target_link_libraries(${ppma_ppma_target} INTERFACE Threads::Threads)
if(NOT DEFINED PPMA_OPENMP OR PPMA_OPENMP)
  find_package(OpenMP COMPONENTS CXX)
  if(OpenMP_CXX_FOUND)
    target_link_libraries(${ppma_ppma_target} INTERFACE OpenMP::OpenMP_CXX)
  endif()
endif()

# What the readers of files include (optional): where it lies, if the compiler does not know. stb has a package in Conan
# alone; elsewhere it is a folder of headers.
find_package(nlohmann_json QUIET)
find_package(stb QUIET)
foreach(target nlohmann_json::nlohmann_json stb::stb)
  if(TARGET ${target})
    target_link_libraries(${ppma_ppma_target} INTERFACE ${target})
  endif()
endforeach()
if(NOT TARGET stb::stb)
  find_path(ppma_stb NAMES stb/stb_image.h stb_image.h NO_CACHE)
  if(ppma_stb)
    target_include_directories(${ppma_ppma_target} INTERFACE $<BUILD_INTERFACE:${ppma_stb}>)
  endif()
endif()

ppma_interface(native ppma_native)
target_compile_options(${ppma_native_target} INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>
                       $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-march=native>)

if(ppma_installed)
  find_library(ppma_library NAMES libppma.a HINTS ${CMAKE_CURRENT_LIST_DIR}/../.. NO_DEFAULT_PATH NO_CACHE)
  if(ppma_library)
    add_library(ppma::compiled STATIC IMPORTED)
    include(${CMAKE_CURRENT_LIST_DIR}/ppmaBlas.cmake OPTIONAL)  # the BLAS that it was built with
    set_target_properties(ppma::compiled PROPERTIES IMPORTED_LOCATION ${ppma_library}
                          INTERFACE_COMPILE_DEFINITIONS PPMA_HEADER_ONLY=0 INTERFACE_LINK_LIBRARIES "ppma::ppma;${ppma_blas}")
  endif()
endif()

if(ppma_installed)
  find_library(ppma_cuda_library NAMES libppma_cuda.a HINTS ${CMAKE_CURRENT_LIST_DIR}/../.. NO_DEFAULT_PATH NO_CACHE)
  if(ppma_cuda_library)
    find_package(CUDAToolkit QUIET)
  endif()
  if(ppma_cuda_library AND TARGET CUDA::cudart)
    add_library(ppma::compiled_cuda STATIC IMPORTED)
    include(${CMAKE_CURRENT_LIST_DIR}/ppmaBlas.cmake OPTIONAL)
    include(${CMAKE_CURRENT_LIST_DIR}/ppmaCuda.cmake)  # NCCL and cuDNN, where it was built with them
    set_target_properties(ppma::compiled_cuda PROPERTIES IMPORTED_LOCATION ${ppma_cuda_library}
                          INTERFACE_COMPILE_DEFINITIONS PPMA_HEADER_ONLY=0
                          INTERFACE_LINK_LIBRARIES "ppma::ppma;${ppma_blas};CUDA::cudart;CUDA::cublasLt;${ppma_cuda_libraries}")
  endif()
endif()

if(PPMA_CUDA)
  find_package(CUDAToolkit REQUIRED)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    # Code for A100 and H100; PTX for what comes later. In the cache, so that a project above this folder sees it too.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90 CACHE STRING "GPUs that code is made for")
  endif()
  enable_language(CUDA)
  ppma_interface(cuda ppma_cuda)
  target_link_libraries(${ppma_cuda_target} INTERFACE ppma::ppma CUDA::cudart CUDA::cublasLt)
  if(OpenMP_CXX_FOUND)  # its own target speaks to the C++ compiler only
    target_compile_options(${ppma_cuda_target} INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${OpenMP_CXX_FLAGS}>)
  endif()
  if(PPMA_NCCL)
    find_path(ppma_nccl_include nccl.h HINTS ${NCCL_ROOT} PATH_SUFFIXES include REQUIRED)
    find_library(ppma_nccl_library NAMES nccl libnccl.so.2 HINTS ${NCCL_ROOT} PATH_SUFFIXES lib REQUIRED)
    target_include_directories(${ppma_cuda_target} SYSTEM INTERFACE ${ppma_nccl_include})
    target_compile_definitions(${ppma_cuda_target} INTERFACE PPMA_NCCL=1)
    list(APPEND ppma_cuda_libraries ${ppma_nccl_library})
  endif()
  if(PPMA_CUDNN)
    find_path(ppma_cudnn_include cudnn.h HINTS ${CUDNN_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include REQUIRED)
    find_library(ppma_cudnn_library NAMES cudnn libcudnn.so.9 NAMES_PER_DIR HINTS ${CUDNN_ROOT} ${CUDAToolkit_LIBRARY_DIR}
                 PATH_SUFFIXES lib lib64 REQUIRED)
    target_include_directories(${ppma_cuda_target} SYSTEM INTERFACE ${ppma_cudnn_include})
    target_compile_definitions(${ppma_cuda_target} INTERFACE PPMA_CUDNN=1)
    list(APPEND ppma_cuda_libraries ${ppma_cudnn_library})
  endif()
  target_link_libraries(${ppma_cuda_target} INTERFACE ${ppma_cuda_libraries})
  # A macro: a language is enabled for a folder and those below, and the caller may be above this one (add_subdirectory,
  # FetchContent).
  macro(ppma_enable_cuda target)
    enable_language(CUDA)
    ppma_compile_as_cuda(${target})
  endmacro()
  function(ppma_compile_as_cuda target)
    get_target_property(sources ${target} SOURCES)
    set_source_files_properties(${sources} PROPERTIES LANGUAGE CUDA)
    # Not CUDA_STANDARD 20: CMake 3.25 of Debian 12 does not know that nvcc 13 has it.
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
    target_link_libraries(${target} PRIVATE ppma::cuda)
  endfunction()
endif()
