# What an installation has besides headers and library: pkg-config files, and Debian packages by CPack:
#   cpack --config build/release/CPackConfig.cmake -B build/packages
#     libppma-dev  headers, libppma.a, CMake and pkg-config files
#     ppma         the tool
set(ppma_pc_cflags "-std=c++20")
set(ppma_pc_libs "-pthread")
if(OpenMP_CXX_FOUND)  # a program and the library use one runtime
  string(APPEND ppma_pc_cflags " ${OpenMP_CXX_FLAGS}")
  string(APPEND ppma_pc_libs " ${OpenMP_CXX_FLAGS}")
endif()
set(ppma_pc_blas)
if(PPMA_BLAS)  # what links the library needs it too
  string(REPLACE ";" " " ppma_pc_blas " ${BLAS_LIBRARIES}")
endif()
# From lib/pkgconfig back to the prefix, whatever the depth of lib (lib/x86_64-linux-gnu).
file(RELATIVE_PATH ppma_pc_up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" ppma_pc_up "${ppma_pc_up}")
foreach(name ppma ppma-compiled)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)
endforeach()

if(PROJECT_IS_TOP_LEVEL)
  set(CPACK_GENERATOR DEB)
  set(CPACK_PACKAGE_NAME ppma)
  set(CPACK_PACKAGE_CONTACT "the ppma authors <ppma@localhost>")
  set(CPACK_DEB_COMPONENT_INSTALL ON)
  set(CPACK_COMPONENTS_ALL dev)
  if(TARGET ppma_tool)
    list(APPEND CPACK_COMPONENTS_ALL tool)
  endif()
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_DEBIAN_PACKAGE_SECTION science)
  set(CPACK_DEBIAN_DEV_PACKAGE_NAME libppma-dev)
  set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
  set(CPACK_COMPONENT_DEV_DESCRIPTION
      "polyline path masked attention for vision transformers (development files)\n Headers and a static library: tensors, reverse-mode differentiation, the mask,\n networks with classification, segmentation and detection heads.")
  set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "g++ | clang")
  set(CPACK_DEBIAN_DEV_PACKAGE_RECOMMENDS "nlohmann-json3-dev, libstb-dev")
  set(CPACK_DEBIAN_TOOL_PACKAGE_NAME ppma)
  set(CPACK_DEBIAN_TOOL_PACKAGE_SHLIBDEPS ON)
  set(CPACK_COMPONENT_TOOL_DESCRIPTION
      "train, evaluate and look at vision transformers with a polyline path mask\n One command for classification, segmentation and detection; without Python.")
  include(CPack)
endif()
